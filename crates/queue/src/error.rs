//! Errors of queues.

use std::path::PathBuf;

use crate::{Fence, Topic};

/// What a queue can refuse, and what can break under it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topic has no room; wait for it and try again.
    #[error("topic {topic} is full: it holds {held} items of at most {capacity}; wait for its readers and try again")]
    Full {
        /// The topic.
        topic: Topic,
        /// Items waiting or leased.
        held: usize,
        /// Its capacity.
        capacity: usize,
    },
    /// A lease ran out and somebody else may work on the item.
    #[error("the lease on item {seq} of topic {topic} was lost; drop the work, another reader has it")]
    LeaseLost {
        /// The topic.
        topic: Topic,
        /// The item's place.
        seq: u64,
    },
    /// A newer writer took the fence.
    #[error(
        "fence {given:?} on topic {topic} is older than {current:?}; another learner has taken over, stop this one"
    )]
    Fenced {
        /// The topic.
        topic: Topic,
        /// The fence given.
        given: Fence,
        /// The newest fence.
        current: Fence,
    },
    /// A step is assigned twice or out of order.
    #[error("step {given} cannot be assigned on topic {topic}, the next one is {next}")]
    Step {
        /// The topic.
        topic: Topic,
        /// The step given.
        given: u64,
        /// The next step.
        next: u64,
    },
    /// The file was written by another version.
    #[error(
        "queue file {path} has schema version {found}, this build reads {expected}; finish the run with the version that began it, or start a new one"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u64,
        /// Version expected.
        expected: u64,
    },
    /// Another process holds the file.
    #[error("queue file {path} is in use by another process; wait for it, or stop it")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a whole queue.
    #[error("queue file {path} is damaged ({reason}); restore it from a backup or start a new run")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error("queue file {path} cannot be used: {reason}; check the disk's space and rights")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the store said.
        reason: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
