//! A queue in this process: the state in memory, and behind it nothing or a redb file.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use joust_core::{RecordId, RunId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    AssignedStep, Consumer, Dead, Done, Error, Fence, Item, Lease, Leased, PutReport, Queue, QueueStats, Result,
    Settings, StepManifest, Topic,
    embedded::Store,
    plan::{Changes, Planner},
    state::{Phase, State},
};

/// How long a waiting reader sleeps at most before it looks for leases that ran out.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Tells the time since some start; tests turn it by hand.
pub trait Clock: Send + Sync {
    /// Returns the time since the clock's start.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A queue in this process.
#[derive(Clone)]
pub struct LocalQueue(Arc<Inner>);

struct Inner {
    guarded: Mutex<Guarded>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    changed: Notify,
}

struct Guarded {
    state: State,
    store: Option<Store>,
}

impl LocalQueue {
    /// Makes a queue that ends with the process.
    pub fn memory(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self::new(Guarded { state: State::default(), store: None }, settings, clock)
    }

    /// Opens or makes a queue in a redb file; leases of an earlier process are void.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Version`], [`Error::Corrupt`] or [`Error::Storage`].
    pub fn embedded(path: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let (store, state) = Store::open(path)?;
        Ok(Self::new(Guarded { state, store: Some(store) }, settings, clock))
    }

    fn new(guarded: Guarded, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { guarded: Mutex::new(guarded), settings, clock, changed: Notify::new() }))
    }

    /// Plans, makes durable, applies: off tokio's threads, because a store flushes to disk.
    async fn change<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&Planner<'_>) -> Result<(Changes, T)> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        let work = move || {
            let mut guarded = inner.guarded.lock();
            let Guarded { state, store } = &mut *guarded;
            let planner = Planner { state, settings: &inner.settings, now: inner.clock.now() };
            let (changes, result) = plan(&planner)?;
            if changes.is_empty() {
                return Ok(result);
            }
            if let Some(store) = store {
                store.write(&changes)?;
            }
            state.apply(changes);
            inner.changed.notify_waiters();
            Ok(result)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.guarded.lock().state)
    }

    async fn try_take(&self, topic: &Topic, max: usize) -> Result<Vec<Leased>> {
        let topic = topic.clone();
        let token = {
            let mut guarded = self.0.guarded.lock();
            let token = guarded.state.next_token;
            guarded.state.next_token += max as u64;
            token
        };
        self.change(move |planner| Ok(planner.take(&topic, max, token))).await
    }
}

#[async_trait]
impl Queue for LocalQueue {
    async fn put(&self, topic: &Topic, items: Vec<Item>) -> Result<PutReport> {
        let topic = topic.clone();
        self.change(move |planner| planner.put(&topic, items)).await
    }

    async fn take(&self, topic: &Topic, _who: &Consumer, max: usize, wait: Duration) -> Result<Vec<Leased>> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // a put between the look and the wait must wake us
            let leased = self.try_take(topic, max).await?;
            if !leased.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(leased);
            }
            let again = deadline.min(tokio::time::Instant::now() + LOOK_AGAIN);
            let _ = tokio::time::timeout_at(again, changed).await; // either way we look again
        }
    }

    async fn renew(&self, leases: &[Lease]) -> Result<()> {
        let leases = leases.to_vec();
        self.change(move |planner| Ok((planner.renew(&leases)?, ()))).await
    }

    async fn commit(&self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>) -> Result<()> {
        self.change(move |planner| Ok((planner.commit(done, next)?, ()))).await
    }

    async fn fence(&self, topic: &Topic) -> Result<Fence> {
        let topic = topic.clone();
        self.change(move |planner| Ok(planner.fence(&topic))).await
    }

    async fn assign(&self, topic: &Topic, leases: Vec<Lease>, step: StepManifest, fence: Fence) -> Result<()> {
        let topic = topic.clone();
        self.change(move |planner| Ok((planner.assign(&topic, &leases, step, fence)?, ()))).await
    }

    async fn assigned(&self, topic: &Topic, from_step: u64) -> Result<Vec<AssignedStep>> {
        Ok(self.read(|state| {
            let state = state.topic(topic);
            let step = |(step, body): (&u64, &Vec<u8>)| {
                let place = |phase: &Phase| match phase {
                    Phase::Assigned { step: of, index } if of == step => Some(*index),
                    _ => None,
                };
                let entries = state.entries.values();
                let mut items: Vec<(u64, Item)> =
                    entries.filter_map(|entry| Some((place(&entry.phase)?, entry.item.clone()))).collect();
                items.sort_by_key(|(index, _)| *index);
                let manifest = StepManifest { step: *step, body: body.clone() };
                AssignedStep { manifest, items: items.into_iter().map(|(_, item)| item).collect() }
            };
            state.plans.range(from_step..).map(step).collect()
        }))
    }

    async fn retire(&self, topic: &Topic, through_step: u64, keep_from_step: u64, fence: Fence) -> Result<()> {
        let topic = topic.clone();
        self.change(move |planner| Ok((planner.retire(&topic, through_step, keep_from_step, fence)?, ()))).await
    }

    async fn kept(&self, topic: &Topic) -> Result<Vec<(u64, Item)>> {
        Ok(self.read(|state| {
            let place = |phase: &Phase| match phase {
                Phase::Kept { step, index } => Some((*step, *index)),
                _ => None,
            };
            let entries = state.topic(topic).entries.values();
            let mut kept: Vec<_> =
                entries.filter_map(|entry| Some((place(&entry.phase)?, entry.item.clone()))).collect();
            kept.sort_by_key(|(place, _)| *place);
            kept.into_iter().map(|((step, _), item)| (step, item)).collect()
        }))
    }

    async fn dead(&self, topic: &Topic) -> Result<Vec<Dead>> {
        Ok(self.read(|state| {
            let dead = state.topic(topic).entries.values().filter_map(|entry| match &entry.phase {
                Phase::Dead { reason } => Some(Dead { item: entry.item.clone(), reason: reason.clone() }),
                _ => None,
            });
            dead.collect()
        }))
    }

    async fn requeue(&self, topic: &Topic, ids: &[RecordId]) -> Result<usize> {
        let (topic, ids) = (topic.clone(), ids.to_vec());
        self.change(move |planner| Ok(planner.requeue(&topic, &ids))).await
    }

    async fn wait_for_room(&self, topic: &Topic, items: usize, wait: Duration) -> Result<bool> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let held = self.read(|state| state.topic(topic).held());
            if held == 0 || held + items <= self.0.settings.capacity_of(topic) {
                return Ok(true);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(false);
            }
        }
    }

    async fn stats(&self, run: &RunId) -> Result<QueueStats> {
        Ok(self.read(|state| state.stats(run)))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
