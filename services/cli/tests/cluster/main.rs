//! The cluster as its users have it: `joust up`, processes that are killed, stopped and cut off, and the run that ends as if nothing was.
//!
//! `JOUST_CHAOS=N` kills each role N times (default 1; `make chaos` prints the table of 8); `JOUST_CHAOS_SEED` draws another order.

mod books;
mod changes;
mod chaos;
mod harness;
mod partitions;
mod proxy;
mod stopped;
mod twin;
