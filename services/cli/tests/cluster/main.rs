//! The cluster as its users have it: `joust up`, processes that are killed, stopped and cut off, and the run that ends as if nothing was.
//!
//! `JOUST_CHAOS=N` kills each role N times (default 1; `make chaos` prints the table of 8); `JOUST_CHAOS_SEED` draws another order.
//! `JOUST_FUZZ=N` sends N messages to each RPC (default 50; `make fuzz` 10 000).

mod books;
mod changes;
mod chaos;
mod fuzz;
mod given;
mod harness;
mod models;
mod partitions;
mod proxy;
#[path = "../../../../crates/telemetry/tests/common/mod.rs"]
mod sink;
mod stopped;
mod telemetry;
mod twin;
