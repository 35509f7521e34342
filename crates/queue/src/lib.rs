//! The durable queue: one trait, a memory and an embedded (redb) backend, one conformance suite.
//!
//! It moves records and counts what becomes of them; it never looks into their bodies. What every backend promises stands
//! at [`Queue`]; the rules are written once, over a small store of ordered keys, so that the backends cannot drift apart.

mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod core;
mod error;
mod handle;
mod queue;
mod records;
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
pub use queue::Queue;
pub use records::{
    AssignedStep, Consumer, DeadLetter, Done, Fence, Item, Lease, Leased, PutReport, StepManifest, Topic, TopicName,
};
pub use settings::{Backend, QueueConfig, Settings, open, open_embedded, open_memory, open_with_clock};
pub use stats::{QueueStats, TopicStats};
pub use unpack::{Finished, unpack};
