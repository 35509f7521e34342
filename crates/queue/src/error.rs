//! Errors of the queue.

use std::path::PathBuf;

use joust_core::RecordId;

use crate::Topic;

/// What can go wrong between a record and its next place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topic holds as much as it may; wait for room and try again.
    #[error("topic {topic} is full: {waiting} of {capacity} items wait; wait until its consumer catches up")]
    Full {
        /// The topic that pushes back.
        topic: Topic,
        /// Items that may wait in it.
        capacity: u64,
        /// Items that wait in it.
        waiting: u64,
    },
    /// The lease is no longer held: the item went to another consumer, was moved, or the queue was reopened.
    #[error("the lease on {id} of topic {topic} is lost, its item was handed out anew or finished; drop the work")]
    LeaseLost {
        /// Topic of the item.
        topic: Topic,
        /// The item.
        id: RecordId,
    },
    /// The lease belongs to another topic than the call.
    #[error("the lease on {id} belongs to topic {found}, expected {expected}")]
    WrongTopic {
        /// The item.
        id: RecordId,
        /// Topic of the lease.
        found: Topic,
        /// Topic of the call.
        expected: Topic,
    },
    /// A newer learner holds the topic; this one may change nothing any more.
    #[error("fence {held} of topic {topic} is stale, {current} was taken since; stop, another learner goes on")]
    Fenced {
        /// The fenced topic.
        topic: Topic,
        /// Fence of the caller.
        held: u64,
        /// Newest fence; 0 when none was taken yet.
        current: u64,
    },
    /// The step has its manifest already; replay it instead.
    #[error("step {step} of topic {topic} is already assigned; read it with `assigned` and replay it")]
    AlreadyAssigned {
        /// The topic.
        topic: Topic,
        /// The step.
        step: u64,
    },
    /// Steps are assigned one after the other.
    #[error("step {found} of topic {topic} cannot be assigned, the next one is {expected}")]
    StepGap {
        /// The topic.
        topic: Topic,
        /// Step that comes next.
        expected: u64,
        /// Step that was asked for.
        found: u64,
    },
    /// The item is not among the dead letters.
    #[error("item {id} is not a dead letter of topic {topic}; list them with `dead`")]
    NotDead {
        /// The topic.
        topic: Topic,
        /// The item.
        id: RecordId,
    },
    /// A topic name holds characters that a key cannot hold.
    #[error(
        "topic name {0:?} is not valid: use 1 to 64 letters, digits, '-', '_' or '.', starting with a letter or digit"
    )]
    TopicName(String),
    /// A setting is out of range.
    #[error("queue setting {name} is {value}; use {want}")]
    Setting {
        /// Name of the setting.
        name: String,
        /// Its value.
        value: String,
        /// What is allowed.
        want: &'static str,
    },
    /// The accounts of a topic do not add up: an item was lost or doubled.
    #[error("topic {topic} took {put} items in but accounts for {accounted}; keep the queue file and report this")]
    Unbalanced {
        /// The topic.
        topic: String,
        /// Items put.
        put: u64,
        /// Items waiting, leased, assigned, finished, dropped or dead.
        accounted: u64,
    },
    /// The file was written by another version of the queue.
    #[error(
        "queue file {path} has schema version {found}, this build reads {expected}; finish the run with the version that began it, or start in a new folder"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u64,
        /// Version that this build reads.
        expected: u64,
    },
    /// Another process holds the file.
    #[error("queue file {path} is in use by another process; stop that run first")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or no queue file.
    #[error(
        "queue file {path} is damaged or not a queue file: {reason}; restore it from a backup or start in a new folder"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// No space is left for the file; what was acknowledged is kept.
    #[error("no space left for queue file {path}; free some and start again, what was acknowledged is kept")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("queue file {path} cannot be used: {reason}; see to the disk and start again")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the store said.
        reason: String,
    },
    /// The server does not answer.
    #[error(
        "redis at {server} was not reached for {seconds:.0} s: {reason}; start it or mend the address, what was acknowledged is kept"
    )]
    Unreachable {
        /// Its address, without secrets.
        server: String,
        /// How long it was tried, in seconds.
        seconds: f64,
        /// What the last try said.
        reason: String,
    },
    /// The server refuses, holds what the queue does not write, or would lose what it is given.
    #[error("redis at {server} cannot be used: {reason}")]
    Server {
        /// Its address, without secrets.
        server: String,
        /// What is wrong.
        reason: String,
    },
    /// The server has no memory or disk left.
    #[error("redis at {server} has no room: {reason}; give it more memory or disk, what was acknowledged is kept")]
    ServerFull {
        /// Its address, without secrets.
        server: String,
        /// What it said.
        reason: String,
    },
    /// A call holds more than a server takes in at once.
    #[error(
        "a call with {bytes} bytes of items is larger than the {limit} that redis takes in at once; put fewer together"
    )]
    TooLarge {
        /// Bytes of the call's items.
        bytes: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// One call cannot be atomic over two runs, which may lie on two servers.
    #[error("topics {one} and {other} belong to two runs; commit to one at a time")]
    TwoRuns {
        /// A topic of the call.
        one: Topic,
        /// One of another run.
        other: Topic,
    },
    /// The thread of an operation ended before its answer; whether it took place is seen after a restart.
    #[error("a queue operation was cut off: {reason}; start again")]
    CutOff {
        /// What the runtime said.
        reason: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
