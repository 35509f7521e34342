//! What every backend promises, and working under a lease.

use std::time::Duration;

use async_trait::async_trait;
use joust_core::{RecordId, RunId};

use crate::{
    AssignedStep, Consumer, DeadLetter, Done, Error, Fence, Item, Lease, Leased, PutReport, QueueStats, Result,
    StepManifest, Topic,
};

/// A durable line of records per topic, from which each record goes on exactly once.
///
/// Every call is atomic: an error, a crash or a dropped future leaves all of it done or none of it. When a call of a durable
/// backend returns, what it did outlives the process and a loss of power. Any call can fail with [`Error::DiskFull`],
/// [`Error::Storage`] or [`Error::CutOff`]; below only the errors of its own are named.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Puts items at the end of a topic, in order. An id that the topic has seen, whatever became of it, is a duplicate and
    /// changes nothing. A batch larger than the capacity is taken in when nothing waits.
    ///
    /// # Errors
    /// [`Error::Full`] if fewer places are free than there are new items; nothing is put then.
    async fn put(&self, topic: &Topic, items: Vec<Item>) -> Result<PutReport>;

    /// Leases up to `max` items in put order, waiting up to `wait` for the first. Leases that ran out are recovered first.
    /// Dropping the future gives back what it had leased.
    async fn take(&self, topic: &Topic, who: &Consumer, max: usize, wait: Duration) -> Result<Vec<Leased>>;

    /// Returns how often a lease that is to last should be renewed: three times while it does.
    fn renew_every(&self) -> Duration;

    /// Starts the time of the leases anew. A lease that ran out is good until its item is handed out again.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if one is not; none is renewed then.
    async fn renew(&self, leases: &[Lease]) -> Result<()>;

    /// Gives items back to their places as if they had never been taken: for a consumer that stops.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if a lease is stale; none is given back then.
    async fn release(&self, leases: &[Lease]) -> Result<()>;

    /// Finishes the inputs, each with its outcome, and puts the outputs, in one step (R1). Outputs with known ids change
    /// nothing. A target takes all of a commit's outputs while fewer than its capacity wait, so one output larger than the
    /// capacity fits.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if a lease is stale; [`Error::Full`] if a target has no place, the inputs stay leased then.
    async fn commit(&self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>) -> Result<()>;

    /// Takes the right to assign steps away from whoever has it.
    async fn fence(&self, topic: &Topic) -> Result<Fence>;

    /// Makes the plan of a step durable together with its items, which need no lease from then on (R2). The first step of a
    /// topic may have any number, each later one follows the one before it.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::AlreadyAssigned`], [`Error::StepGap`], [`Error::LeaseLost`] or [`Error::WrongTopic`];
    /// nothing changes then.
    async fn assign(&self, topic: &Topic, leases: Vec<Lease>, manifest: StepManifest, fence: Fence) -> Result<()>;

    /// Returns the steps from `from_step` on that are assigned and not retired, in order, for replay after a crash.
    async fn assigned(&self, topic: &Topic, from_step: u64) -> Result<Vec<AssignedStep>>;

    /// Finishes the items of all steps up to and including `through_step`, which a checkpoint covers: their plans are dropped, and
    /// of all retired steps the items of `keep_from_step` and later stay readable; older ones are deleted. Doing it twice
    /// changes nothing.
    ///
    /// # Errors
    /// [`Error::Fenced`] if the fence is stale.
    async fn retire(&self, topic: &Topic, through_step: u64, keep_from_step: u64, fence: Fence) -> Result<()>;

    /// Returns what retired steps left readable, each with its step, oldest first.
    async fn kept(&self, topic: &Topic) -> Result<Vec<(u64, Item)>>;

    /// Returns the dead letters in put order.
    async fn dead(&self, topic: &Topic) -> Result<Vec<DeadLetter>>;

    /// Returns dead letters to their places, as new; the capacity does not hold them up.
    ///
    /// # Errors
    /// [`Error::NotDead`] if an id is not a dead letter; none is returned then.
    async fn requeue(&self, topic: &Topic, ids: &[RecordId]) -> Result<()>;

    /// Returns the accounts of a run.
    async fn stats(&self, run: &RunId) -> Result<QueueStats>;

    /// Waits until a put of this many items would find room, and returns whether it would; `false` after `wait`.
    /// For 1 item this is the room that a commit needs.
    async fn wait_for_room(&self, topic: &Topic, items: usize, wait: Duration) -> Result<bool>;

    /// Puts items, waiting up to `wait` for room whenever there is none.
    ///
    /// # Errors
    /// [`Error::Full`] if there was no room for that long.
    async fn put_when_room(&self, topic: &Topic, items: Vec<Item>, wait: Duration) -> Result<PutReport> {
        loop {
            match self.put(topic, items.clone()).await {
                Err(full @ Error::Full { .. }) => {
                    if !self.wait_for_room(topic, items.len(), wait).await? {
                        return Err(full);
                    }
                }
                report => return report,
            }
        }
    }

    /// Commits, waiting up to `wait` for room whenever a target has none; the leases are renewed meanwhile.
    ///
    /// # Errors
    /// As [`Queue::commit`]; [`Error::Full`] if a target had no room for that long.
    async fn commit_when_room(&self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>, wait: Duration) -> Result<()> {
        let leases: Vec<Lease> = done.iter().map(|(lease, _)| lease.clone()).collect();
        let mut left = wait;
        loop {
            match self.commit(done.clone(), next.clone()).await {
                Err(Error::Full { topic, capacity, waiting }) => {
                    self.renew(&leases).await?;
                    let part = left.min(self.renew_every());
                    if self.wait_for_room(&topic, 1, part).await? {
                        left = wait;
                    } else if left == part {
                        return Err(Error::Full { topic, capacity, waiting });
                    } else {
                        left -= part;
                    }
                }
                report => return report,
            }
        }
    }
}

/// Works on what was leased, and renews the leases meanwhile.
///
/// # Errors
/// As [`Queue::renew`], for example [`Error::LeaseLost`] for leases that went to someone else; the work is dropped then.
pub async fn holding<T>(queue: &dyn Queue, leases: &[Lease], work: impl Future<Output = T>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(queue.renew_every()) => queue.renew(leases).await?,
        }
    }
}
