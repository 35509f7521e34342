//! The rules of the queue, written once over a [`Store`]: what is durable lives in the store, what a process knows only for
//! itself (who holds which lease until when) lives here.

mod load;
mod read;
pub(crate) mod rows;
mod steps;
mod txn;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use joust_core::RecordId;

use crate::{
    Clock, Consumer, Done, Fence, Item, Lease, Leased, PutReport, Result, Settings, StepManifest, Topic, store::Store,
};
use rows::{Counters, Tries};
use txn::Txn;

/// A queue over one store; every call is one transaction.
pub(crate) struct Core<S> {
    store: S,
    settings: Settings,
    clock: Arc<dyn Clock>,
    state: State,
}

/// What the process keeps in memory; equal to the store wherever the store knows it.
#[derive(Default)]
struct State {
    topics: BTreeMap<Topic, TopicState>,
    /// Last lease token; its upper half is the session, so no token of a dead process comes again.
    token: u64,
}

/// One topic in memory.
#[derive(Default)]
struct TopicState {
    /// Prefix of the topic's keys.
    number: u32,
    counters: Counters,
    /// Place of every id that was ever put. Here and not only in the store, where rows sorted by what is a hash would touch a page each.
    ids: HashMap<RecordId, u64>,
    /// What waits, by place. Here and not only in the store, so that handing out changes one row an item and a look at an idle topic costs nothing.
    waiting: BTreeMap<u64, Tries>,
    leases: BTreeMap<u64, Held>,
}

/// A lease as its giver knows it.
#[derive(Clone)]
struct Held {
    token: u64,
    expires: Duration,
    holder: Consumer,
    tries: Tries,
}

impl<S: Store> Core<S> {
    /// Runs a change in one transaction, and takes over what it changed once that is durable.
    fn transact<T>(&mut self, change: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        let (state, settings, now) = (&self.state, &self.settings, self.clock.now());
        let (out, drafts, token) = self.store.write(|tables| {
            let mut txn = Txn::new(tables, state, settings, now);
            let out = change(&mut txn)?;
            let (drafts, token) = txn.save()?;
            Ok((out, drafts, token))
        })?;
        self.state.token = token;
        for (topic, draft) in drafts {
            draft.apply(self.state.topics.entry(topic).or_default());
        }
        Ok(out)
    }

    /// Returns how long a lease lasts.
    pub(crate) fn lease(&self) -> Duration {
        self.settings.lease
    }

    pub(crate) fn put(&mut self, topic: &Topic, items: Vec<Item>) -> Result<PutReport> {
        if items.is_empty() {
            return Ok(PutReport::default());
        }
        self.transact(|txn| txn.put(topic, items))
    }

    pub(crate) fn take(&mut self, topic: &Topic, who: &Consumer, max: usize) -> Result<Vec<Leased>> {
        let now = self.clock.now();
        let available =
            |topic: &TopicState| !topic.waiting.is_empty() || topic.leases.values().any(|held| held.expires <= now);
        if max == 0 || !self.state.topics.get(topic).is_some_and(available) {
            return Ok(Vec::new());
        }
        self.transact(|txn| {
            txn.recover(topic)?;
            txn.take(topic, who, max)
        })
    }

    /// Returns when the next lease of a topic runs out.
    pub(crate) fn next_expiry(&self, topic: &Topic) -> Option<Duration> {
        self.state.topics.get(topic)?.leases.values().map(|held| held.expires).min()
    }

    pub(crate) fn renew(&mut self, leases: &[Lease]) -> Result<()> {
        leases.iter().try_for_each(|lease| self.state.held(lease).map(|_| ()))?;
        let expires = self.clock.now().saturating_add(self.settings.lease);
        for lease in leases {
            let topic = self.state.topics.get_mut(&lease.topic);
            if let Some(held) = topic.and_then(|topic| topic.leases.get_mut(&lease.place)) {
                held.expires = expires;
            }
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, leases: &[Lease]) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        self.transact(|txn| leases.iter().try_for_each(|lease| txn.release(lease)))
    }

    pub(crate) fn commit(&mut self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>) -> Result<()> {
        if done.is_empty() && next.is_empty() {
            return Ok(());
        }
        self.transact(|txn| {
            done.into_iter().try_for_each(|(lease, done)| txn.finish(&lease, done))?;
            txn.put_outputs(next)
        })
    }

    pub(crate) fn fence(&mut self, topic: &Topic) -> Result<Fence> {
        self.transact(|txn| Ok(txn.fence(topic)))
    }

    pub(crate) fn assign(
        &mut self,
        topic: &Topic,
        leases: &[Lease],
        manifest: &StepManifest,
        fence: Fence,
    ) -> Result<()> {
        self.transact(|txn| txn.assign(topic, leases, manifest, fence))
    }

    pub(crate) fn retire(&mut self, topic: &Topic, through: u64, keep_from: u64, fence: Fence) -> Result<()> {
        self.transact(|txn| txn.retire(topic, through, keep_from, fence))
    }

    pub(crate) fn requeue(&mut self, topic: &Topic, ids: &[RecordId]) -> Result<()> {
        self.transact(|txn| ids.iter().try_for_each(|id| txn.requeue(topic, id)))
    }

    /// Says whether a put of this many new items would find room.
    pub(crate) fn has_room(&self, topic: &Topic, items: usize) -> bool {
        let waiting = self.state.topics.get(topic).map_or(0, |topic| topic.waiting.len() as u64);
        waiting == 0 || waiting.saturating_add(items as u64) <= self.settings.capacity_of(&topic.name)
    }
}

impl State {
    /// Returns what is known of a lease, if it is good.
    fn held(&self, lease: &Lease) -> Result<&Held> {
        let held = self.topics.get(&lease.topic).and_then(|topic| topic.leases.get(&lease.place));
        held.filter(|held| held.token == lease.token)
            .ok_or_else(|| crate::Error::LeaseLost { topic: lease.topic.clone(), id: lease.id })
    }
}
