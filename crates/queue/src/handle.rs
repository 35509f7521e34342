//! The queue as its users hold it: waiting, waking, and keeping the disk off the runtime's threads.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use joust_core::{RecordId, RunId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    AssignedStep, Clock, Consumer, DeadLetter, Done, Error, Fence, Item, Lease, Leased, PutReport, Queue, QueueStats,
    Result, StepManifest, Topic, core::Core, store::Store,
};

/// A queue over one store.
pub(crate) struct Handle<S: Store> {
    shared: Arc<Shared<S>>,
    clock: Arc<dyn Clock>,
    renew_every: Duration,
}

struct Shared<S> {
    core: Mutex<Core<S>>,
    /// Wakes who waits for items or room, whenever there may be some.
    changed: Notify,
}

/// Items on their way to a consumer; gives them back when the consumer stopped waiting meanwhile.
struct Handover<S: Store> {
    shared: Arc<Shared<S>>,
    leased: Vec<Leased>,
    next_expiry: Option<Duration>,
}

impl<S: Store> Drop for Handover<S> {
    fn drop(&mut self) {
        if self.leased.is_empty() {
            return;
        }
        let leases: Vec<Lease> = self.leased.iter().map(|leased| leased.lease.clone()).collect();
        // A store that fails here fails the next call too, and leases run out in any case.
        let _ = self.shared.core.lock().release(&leases);
        self.shared.changed.notify_waiters();
    }
}

impl<S: Store> Handle<S> {
    pub(crate) fn new(core: Core<S>, clock: Arc<dyn Clock>) -> Self {
        let renew_every = core.lease() / 3;
        Self { shared: Arc::new(Shared { core: Mutex::new(core), changed: Notify::new() }), clock, renew_every }
    }

    /// Runs an operation, beside the runtime if it waits for a disk.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Arc<Shared<S>>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !S::BLOCKS {
            return operation(&self.shared);
        }
        let shared = self.shared.clone();
        let run = tokio::task::spawn_blocking(move || operation(&shared));
        run.await.unwrap_or_else(|error| Err(Error::CutOff { reason: error.to_string() }))
    }

    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Core<S>) -> Result<T> + Send + 'static) -> Result<T> {
        self.run(|shared| look(&shared.core.lock())).await
    }

    /// Runs an operation after which items or room may be there for someone who waits.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Core<S>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(|shared| {
            let done = change(&mut shared.core.lock())?;
            shared.changed.notify_waiters();
            Ok(done)
        })
        .await
    }

    async fn try_take(&self, topic: &Topic, who: &Consumer, max: usize) -> Result<Handover<S>> {
        let (topic, who) = (topic.clone(), who.clone());
        self.run(move |shared| {
            let mut core = shared.core.lock();
            let leased = core.take(&topic, &who, max)?;
            let next_expiry = core.next_expiry(&topic);
            drop(core);
            if !leased.is_empty() {
                shared.changed.notify_waiters();
            }
            Ok(Handover { shared: shared.clone(), leased, next_expiry })
        })
        .await
    }
}

#[async_trait]
impl<S: Store> Queue for Handle<S> {
    fn renew_every(&self) -> Duration {
        self.renew_every
    }

    async fn put(&self, topic: &Topic, items: Vec<Item>) -> Result<PutReport> {
        let topic = topic.clone();
        self.change(move |core| core.put(&topic, items)).await
    }

    async fn take(&self, topic: &Topic, who: &Consumer, max: usize, wait: Duration) -> Result<Vec<Leased>> {
        let deadline = self.clock.now().saturating_add(wait);
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // Listening begins before the look, so that nothing put between the two is slept through.
            changed.as_mut().enable();
            let mut handover = self.try_take(topic, who, max).await?;
            if !handover.leased.is_empty() || max == 0 || self.clock.now() >= deadline {
                return Ok(std::mem::take(&mut handover.leased));
            }
            let wake = handover.next_expiry.map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                () = changed => {}
                () = self.clock.sleep_until(wake) => {}
            }
        }
    }

    async fn renew(&self, leases: &[Lease]) -> Result<()> {
        let leases = leases.to_vec();
        // Nobody's items come nearer by it, so nobody is woken.
        self.run(move |shared| shared.core.lock().renew(&leases)).await
    }

    async fn release(&self, leases: &[Lease]) -> Result<()> {
        let leases = leases.to_vec();
        self.change(move |core| core.release(&leases)).await
    }

    async fn commit(&self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>) -> Result<()> {
        self.change(move |core| core.commit(done, next)).await
    }

    async fn fence(&self, topic: &Topic) -> Result<Fence> {
        let topic = topic.clone();
        self.change(move |core| core.fence(&topic)).await
    }

    async fn assign(&self, topic: &Topic, leases: Vec<Lease>, manifest: StepManifest, fence: Fence) -> Result<()> {
        let topic = topic.clone();
        self.change(move |core| core.assign(&topic, &leases, &manifest, fence)).await
    }

    async fn assigned(&self, topic: &Topic, from_step: u64) -> Result<Vec<AssignedStep>> {
        let topic = topic.clone();
        self.look(move |core| core.assigned(&topic, from_step)).await
    }

    async fn retire(&self, topic: &Topic, through_step: u64, keep_from_step: u64, fence: Fence) -> Result<()> {
        let topic = topic.clone();
        self.change(move |core| core.retire(&topic, through_step, keep_from_step, fence)).await
    }

    async fn kept(&self, topic: &Topic) -> Result<Vec<(u64, Item)>> {
        let topic = topic.clone();
        self.look(move |core| core.kept(&topic)).await
    }

    async fn dead(&self, topic: &Topic) -> Result<Vec<DeadLetter>> {
        let topic = topic.clone();
        self.look(move |core| core.dead(&topic)).await
    }

    async fn requeue(&self, topic: &Topic, ids: &[RecordId]) -> Result<()> {
        let (topic, ids) = (topic.clone(), ids.to_vec());
        self.change(move |core| core.requeue(&topic, &ids)).await
    }

    async fn stats(&self, run: &RunId) -> Result<QueueStats> {
        let run = run.clone();
        self.look(move |core| core.stats(&run)).await
    }

    async fn wait_for_room(&self, topic: &Topic, items: usize, wait: Duration) -> Result<bool> {
        let deadline = self.clock.now().saturating_add(wait);
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let looked = topic.clone();
            if self.look(move |core| Ok(core.has_room(&looked, items))).await? {
                return Ok(true);
            }
            if self.clock.now() >= deadline {
                return Ok(false);
            }
            tokio::select! {
                () = changed => {}
                () = self.clock.sleep_until(deadline) => {}
            }
        }
    }
}
