//! The durable queue: one trait, backends in memory, in a file (redb) and on Redis, one conformance suite.
//!
//! It moves records and counts what becomes of them; it never looks into their bodies. What every backend promises stands
//! at [`Queue`]; the rules are written once for stores that one process holds, over a small store of ordered keys, and once in Lua for a server that
//! several share.

mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod core;
mod error;
mod handle;
mod queue;
mod records;
mod remote;
#[cfg(any(test, feature = "sandbox"))]
pub mod sandbox;
mod settings;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod unpack;

#[cfg(any(test, feature = "conformance"))]
pub use clock::ManualClock;
pub use clock::{Clock, SystemClock};
pub use error::{Error, Result};
pub use queue::{Queue, holding};
pub use records::{
    AssignedStep, Consumer, DeadLetter, Done, Fence, Item, Lease, Leased, PutReport, StepManifest, Topic, TopicName,
};
pub use remote::{RedisConfig, open_redis};
pub use settings::{Backend, QueueConfig, Settings, open, open_embedded, open_memory, open_with_clock};
pub use stats::{QueueStats, TopicStats};
pub use unpack::{Finished, Unpacked, unpack};
