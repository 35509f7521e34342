//! The durable queue: one trait, a memory and an embedded (redb) backend, one conformance suite.
//!
//! All rules live in one pure state machine ([`state`]): an operation is first planned as a list of changes, then made durable,
//! then applied. The backends differ only in where the changes go, so they cannot differ in meaning. It does not know what
//! its items hold.

mod backend;
mod embedded;
mod error;
mod plan;
mod state;
mod stats;
mod types;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use joust_core::{RecordId, RunId};

pub use backend::{Clock, LocalQueue, SystemClock};
pub use error::{Error, Result};
pub use stats::{QueueStats, TopicStats};
pub use types::{
    AssignedStep, Consumer, Dead, Done, Fence, Item, Lease, Leased, PutReport, Settings, StepManifest, Topic,
};

/// What every backend promises.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Puts items at the end of a topic, all or none; an id that the topic has ever held is a duplicate and changes nothing.
    ///
    /// # Errors
    /// [`Error::Full`] if the topic holds items and these would exceed its capacity.
    async fn put(&self, topic: &Topic, items: Vec<Item>) -> Result<PutReport>;

    /// Leases up to `max` waiting items in put order, waiting up to `wait` for the first one.
    ///
    /// Items whose lease ran out are leased anew; one that was delivered too often goes to the dead letters instead.
    async fn take(&self, topic: &Topic, who: &Consumer, max: usize, wait: Duration) -> Result<Vec<Leased>>;

    /// Extends leases to a full lease time from now.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if one of them ran out and was taken over; then none is extended.
    async fn renew(&self, leases: &[Lease]) -> Result<()>;

    /// Finishes leased items and puts their outputs in one step (R1).
    ///
    /// # Errors
    /// [`Error::LeaseLost`] or [`Error::Full`]; then nothing changed and the leases still hold.
    async fn commit(&self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>) -> Result<()>;

    /// Takes a new fence on a topic: every older one can assign and retire nothing any more.
    async fn fence(&self, topic: &Topic) -> Result<Fence>;

    /// Makes a step durable: its manifest, and its leased items, which need no lease from then on (R2).
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Step`] if the step is not the next one, [`Error::LeaseLost`]; then nothing changed.
    async fn assign(&self, topic: &Topic, leases: Vec<Lease>, step: StepManifest, fence: Fence) -> Result<()>;

    /// Returns the assigned steps from `from_step` on that are not retired, in order, with their items in lease order.
    async fn assigned(&self, topic: &Topic, from_step: u64) -> Result<Vec<AssignedStep>>;

    /// Finishes the items of all steps up to `through_step`, which a checkpoint covers; those of `keep_from_step` or later stay
    /// readable for replay. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Fenced`]; then nothing changed.
    async fn retire(&self, topic: &Topic, through_step: u64, keep_from_step: u64, fence: Fence) -> Result<()>;

    /// Returns the retired items that stay readable, oldest step first, each with its step.
    async fn kept(&self, topic: &Topic) -> Result<Vec<(u64, Item)>>;

    /// Lists the dead letters of a topic, oldest first.
    async fn dead(&self, topic: &Topic) -> Result<Vec<Dead>>;

    /// Puts dead letters back at the end of their topic, with their deliveries forgotten; returns how many were found.
    async fn requeue(&self, topic: &Topic, ids: &[RecordId]) -> Result<usize>;

    /// Waits until the topic has room for `items` more, or until `wait` is over; returns whether it has.
    async fn wait_for_room(&self, topic: &Topic, items: usize, wait: Duration) -> Result<bool>;

    /// Counts what every topic of a run holds and has seen.
    async fn stats(&self, run: &RunId) -> Result<QueueStats>;
}

/// Opens a queue in memory: gone with the process.
pub fn open_memory(settings: Settings) -> Arc<dyn Queue> {
    Arc::new(LocalQueue::memory(settings, Arc::new(SystemClock::default())))
}

/// Opens or makes a queue in a redb file, which this process then holds alone.
///
/// # Errors
/// [`Error::Locked`], [`Error::Version`], [`Error::Corrupt`] or [`Error::Storage`], each with the file.
pub fn open_embedded(path: &std::path::Path, settings: Settings) -> Result<Arc<dyn Queue>> {
    Ok(Arc::new(LocalQueue::embedded(path, settings, Arc::new(SystemClock::default()))?))
}
