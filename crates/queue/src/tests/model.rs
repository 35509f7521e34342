//! Random operations against a model that is too simple to be wrong: a list of items, each in one place.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use joust_core::{RecordId, RunId};
use proptest::prelude::*;

use super::{embedded, memory};
use crate::{Consumer, Done, Error, Fence, Item, Lease, ManualClock, Queue, Settings, StepManifest, Topic, TopicStats};

const CAPACITY: usize = 6;
const LEASE: u64 = 10;
const MAX_DELIVERIES: u32 = 3;
const MAX_CRASHES: u32 = 2;

/// One random operation; numbers are indices into whatever the model has at that moment.
#[derive(Debug, Clone)]
enum Op {
    Put(Vec<u8>),
    Take(usize),
    Finish(Vec<(usize, u8)>, Vec<u8>),
    Renew(usize),
    Release(usize),
    Advance(u64),
    Fence,
    Assign(Vec<usize>, u64, bool),
    Retire(u64, u64, bool),
    Requeue(u8),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let ids = || prop::collection::vec(0..24u8, 0..5);
    let outcomes = prop::collection::vec((0..12usize, 0..3u8), 0..4);
    prop_oneof![
        4 => ids().prop_map(Op::Put),
        5 => (0..5usize).prop_map(Op::Take),
        5 => (outcomes, ids()).prop_map(|(done, next)| Op::Finish(done, next)),
        1 => (0..12usize).prop_map(Op::Renew),
        1 => (0..12usize).prop_map(Op::Release),
        3 => (1..12u64).prop_map(Op::Advance),
        1 => Just(Op::Fence),
        4 => (prop::collection::vec(0..12usize, 0..4), 0..3u64, prop::bool::weighted(0.9)).prop_map(|(l, s, f)| Op::Assign(l, s, f)),
        2 => (0..6u64, 0..6u64, prop::bool::weighted(0.9)).prop_map(|(t, k, f)| Op::Retire(t, k, f)),
        2 => (0..24u8).prop_map(Op::Requeue),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Waiting,
    Leased { token: u64, expires: u64 },
    Assigned(u64, usize),
    Kept(u64, usize),
    Gone,
    Dropped,
    Dead,
}

#[derive(Debug, Clone)]
struct Entry {
    id: u8,
    place: Place,
    deliveries: u32,
    crashes: u32,
}

/// The model of the topic under test; outputs of commits go to a second topic, of which it knows ids and number alone.
#[derive(Debug, Clone, Default)]
struct Model {
    entries: Vec<Entry>,
    outputs: Vec<u8>,
    now: u64,
    fence: u64,
    next_step: Option<u64>,
    /// Every lease that was ever given.
    leases: Vec<Lease>,
}

impl Model {
    fn count(&self, is: impl Fn(&Place) -> bool) -> u64 {
        self.entries.iter().filter(|entry| is(&entry.place)).count() as u64
    }

    fn put(&mut self, ids: &[u8]) -> Option<(u64, u64)> {
        let mut new: Vec<u8> = Vec::new();
        for id in ids {
            if !new.contains(id) && !self.entries.iter().any(|entry| entry.id == *id) {
                new.push(*id);
            }
        }
        let waiting = self.count(|place| *place == Place::Waiting) as usize;
        if !new.is_empty() && waiting > 0 && waiting + new.len() > CAPACITY {
            return None;
        }
        let (added, all) = (new.len() as u64, ids.len() as u64);
        self.entries.extend(new.into_iter().map(|id| Entry { id, place: Place::Waiting, deliveries: 0, crashes: 0 }));
        Some((added, all - added))
    }

    /// Gives back or gives up an item whose consumer is gone.
    fn recover(entry: &mut Entry, crashed: bool) {
        entry.crashes += u32::from(crashed);
        let spent =
            if crashed { entry.crashes >= MAX_CRASHES } else { entry.deliveries - entry.crashes >= MAX_DELIVERIES };
        entry.place = if spent { Place::Dead } else { Place::Waiting };
    }

    /// Returns what a take must hand out.
    fn take(&mut self, max: usize) -> Vec<(u8, u32)> {
        if max == 0 {
            return Vec::new();
        }
        let now = self.now;
        for entry in &mut self.entries {
            if matches!(entry.place, Place::Leased { expires, .. } if expires <= now) {
                Self::recover(entry, false);
            }
        }
        let waiting = self.entries.iter_mut().filter(|entry| entry.place == Place::Waiting).take(max);
        waiting
            .map(|entry| {
                entry.deliveries += 1;
                (entry.id, entry.deliveries)
            })
            .collect()
    }

    /// Notes the lease that a take gave.
    fn lease(&mut self, lease: &Lease) {
        let entry = &mut self.entries[lease.place as usize];
        entry.place = Place::Leased { token: lease.token, expires: self.now + LEASE };
        self.leases.push(lease.clone());
    }

    fn held(&mut self, lease: &Lease) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(lease.place as usize)?;
        matches!(entry.place, Place::Leased { token, .. } if token == lease.token).then_some(entry)
    }

    /// Ends leases, all or none.
    fn end(&mut self, leases: &[Lease], mut end: impl FnMut(&mut Entry, usize)) -> bool {
        let mut after = self.clone();
        for (index, lease) in leases.iter().enumerate() {
            match after.held(lease) {
                Some(entry) => end(entry, index),
                None => return false,
            }
        }
        *self = after;
        true
    }

    fn finish(&mut self, done: &[(Lease, u8)], next: &[u8]) -> bool {
        let mut after = self.clone();
        let leases: Vec<Lease> = done.iter().map(|(lease, _)| lease.clone()).collect();
        let ended = after.end(&leases, |entry, index| match done[index].1 {
            0 => entry.place = Place::Gone,
            1 => entry.place = Place::Dropped,
            _ if entry.deliveries - entry.crashes >= MAX_DELIVERIES => entry.place = Place::Dead,
            _ => entry.place = Place::Waiting,
        });
        let full = after.outputs.len() >= CAPACITY && next.iter().any(|id| !after.outputs.contains(id));
        if !ended || full {
            return false;
        }
        for id in next {
            if !after.outputs.contains(id) {
                after.outputs.push(*id);
            }
        }
        *self = after;
        true
    }

    fn assign(&mut self, leases: &[Lease], step: u64, fence: u64) -> bool {
        if fence != self.fence || fence == 0 || self.next_step.is_some_and(|next| next != step) {
            return false;
        }
        let done = self.end(leases, |entry, index| entry.place = Place::Assigned(step, index));
        if done {
            self.next_step = Some(step + 1);
        }
        done
    }

    fn retire(&mut self, through: u64, keep_from: u64, fence: u64) -> bool {
        if fence != self.fence || fence == 0 {
            return false;
        }
        for entry in &mut self.entries {
            if let Place::Assigned(step, index) = entry.place
                && step <= through
            {
                entry.place = Place::Kept(step, index);
            }
            if matches!(entry.place, Place::Kept(step, _) if step < keep_from) {
                entry.place = Place::Gone;
            }
        }
        true
    }

    fn crash(&mut self) {
        for entry in &mut self.entries {
            if matches!(entry.place, Place::Leased { .. }) {
                Self::recover(entry, true);
            }
        }
    }

    /// Returns ids by step, in order, of the places that `of` picks.
    fn steps(&self, of: impl Fn(&Place) -> Option<(u64, usize)>) -> Vec<(u64, u8)> {
        let mut items: Vec<_> = self.entries.iter().filter_map(|entry| Some((of(&entry.place)?, entry.id))).collect();
        items.sort_unstable();
        items.into_iter().map(|((step, _), id)| (step, id)).collect()
    }
}

/// Opens the queue under test, anew after a crash.
type Open = Box<dyn Fn(Arc<ManualClock>) -> Arc<dyn Queue>>;

/// A queue beside its model.
struct Pair {
    queue: Option<Arc<dyn Queue>>,
    open: Open,
    clock: Arc<ManualClock>,
    topic: Topic,
    outputs: Topic,
    model: Model,
}

fn item(id: u8) -> Item {
    Item { id: RecordId::derive(&[&[id]]), body: vec![id], trace: None }
}

fn items(ids: &[u8]) -> Vec<Item> {
    ids.iter().copied().map(item).collect()
}

impl Pair {
    fn queue(&self) -> &dyn Queue {
        self.queue.as_deref().expect("open between operations")
    }

    /// Picks leases by index among all that were ever given.
    fn leases(&self, indices: impl IntoIterator<Item = usize>) -> Vec<Lease> {
        let all = &self.model.leases;
        // The newest are the likeliest to be good.
        indices.into_iter().filter_map(|index| all.iter().rev().nth(index).cloned()).collect()
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Put(ids) => {
                let report = self.queue().put(&self.topic, items(&ids)).await;
                match self.model.put(&ids) {
                    Some(expected) => {
                        let report = report.expect("there is room");
                        assert_eq!((report.added, report.duplicates), expected);
                    }
                    None => assert!(matches!(report, Err(Error::Full { .. })), "{report:?}"),
                }
            }
            Op::Take(max) => {
                let taken = self.queue().take(&self.topic, &Consumer::new("m"), max, Duration::ZERO).await;
                let taken = taken.expect("a take");
                let seen: Vec<_> = taken.iter().map(|leased| (leased.item.body[0], leased.deliveries)).collect();
                assert_eq!(seen, self.model.take(max));
                taken.iter().for_each(|leased| self.model.lease(&leased.lease));
            }
            Op::Finish(done, next) => {
                let leases = self.leases(done.iter().map(|(index, _)| *index));
                let done: Vec<_> = leases.into_iter().zip(done.iter().map(|(_, outcome)| *outcome)).collect();
                let outcome = |outcome: u8| match outcome {
                    0 => Done::Moved,
                    1 => Done::Dropped("dropped".into()),
                    _ => Done::Retry("retried".into()),
                };
                let named = done.iter().map(|(lease, done)| (lease.clone(), outcome(*done))).collect();
                let outputs = items(&next).into_iter().map(|item| (self.outputs.clone(), item)).collect();
                let committed = self.queue().commit(named, outputs).await;
                assert_eq!(committed.is_ok(), self.model.finish(&done, &next), "{committed:?}");
            }
            Op::Renew(index) => {
                let leases = self.leases([index]);
                let renewed = self.queue().renew(&leases).await.is_ok();
                let now = self.model.now;
                let extend = |entry: &mut Entry, _| {
                    if let Place::Leased { expires, .. } = &mut entry.place {
                        *expires = now + LEASE;
                    }
                };
                assert_eq!(renewed, self.model.end(&leases, extend));
            }
            Op::Release(index) => {
                let leases = self.leases([index]);
                let released = self.queue().release(&leases).await.is_ok();
                let untake = |entry: &mut Entry, _| {
                    (entry.place, entry.deliveries) = (Place::Waiting, entry.deliveries - 1);
                };
                assert_eq!(released, self.model.end(&leases, untake));
            }
            Op::Advance(seconds) => {
                self.clock.advance(Duration::from_secs(seconds));
                self.model.now += seconds;
            }
            op => self.apply_to_steps(op).await,
        }
    }

    async fn apply_to_steps(&mut self, op: Op) {
        let fence_of = |model: &Model, good: bool| if good { model.fence } else { model.fence.wrapping_sub(1) };
        match op {
            Op::Fence => {
                self.model.fence += 1;
                let fence = self.queue().fence(&self.topic).await.expect("a fence");
                assert_eq!(fence, Fence(self.model.fence));
            }
            Op::Assign(indices, offset, good) => {
                let leases = self.leases(indices);
                // Mostly the next step, at times the one before it or the one after it.
                let step = (self.model.next_step.unwrap_or(1) + offset / 2).saturating_sub(u64::from(offset == 1));
                let fence = fence_of(&self.model, good);
                let manifest = StepManifest { step, body: vec![step as u8] };
                let assigned = self.queue().assign(&self.topic, leases.clone(), manifest, Fence(fence)).await;
                assert_eq!(assigned.is_ok(), self.model.assign(&leases, step, fence), "{assigned:?}");
            }
            Op::Retire(through, keep_from, good) => {
                let fence = fence_of(&self.model, good);
                let retired = self.queue().retire(&self.topic, through, keep_from, Fence(fence)).await;
                assert_eq!(retired.is_ok(), self.model.retire(through, keep_from, fence), "{retired:?}");
            }
            Op::Requeue(id) => {
                let requeued = self.queue().requeue(&self.topic, &[item(id).id]).await;
                let dead = |entry: &&mut Entry| entry.id == id && entry.place == Place::Dead;
                let found = self.model.entries.iter_mut().find(dead);
                assert_eq!(requeued.is_ok(), found.is_some(), "{requeued:?}");
                if let Some(entry) = found {
                    *entry = Entry { id, place: Place::Waiting, deliveries: 0, crashes: 0 };
                }
            }
            Op::Reopen => {
                self.queue = None;
                self.queue = Some((self.open)(self.clock.clone()));
                self.model.crash();
            }
            op => unreachable!("{op:?} is applied elsewhere"),
        }
    }

    /// Compares all that can be seen.
    async fn compare(&self) {
        let model = &self.model;
        let stats = self.queue().stats(&self.topic.run).await.expect("stats");
        stats.balance().expect("the accounts add up");
        let TopicStats { put, waiting, leased, assigned, finished, kept, dropped, dead, .. } =
            stats.of(&self.topic.name);
        let kept_now = model.count(|place| matches!(place, Place::Kept(..)));
        assert_eq!(put, model.entries.len() as u64);
        assert_eq!(waiting, model.count(|place| *place == Place::Waiting));
        assert_eq!(leased, model.count(|place| matches!(place, Place::Leased { .. })));
        assert_eq!(assigned, model.count(|place| matches!(place, Place::Assigned(..))));
        assert_eq!(kept, kept_now);
        assert_eq!(finished, model.count(|place| *place == Place::Gone) + kept_now);
        assert_eq!(dropped.values().sum::<u64>(), model.count(|place| *place == Place::Dropped));
        assert_eq!(dead.values().sum::<u64>(), model.count(|place| *place == Place::Dead));
        assert_eq!(stats.of(&self.outputs.name).waiting, model.outputs.len() as u64);
        let steps = self.queue().assigned(&self.topic, 0).await.expect("the assigned steps");
        let seen = steps.iter().flat_map(|step| step.items.iter().map(|item| (step.manifest.step, item.body[0])));
        let of = |place: &Place| if let Place::Assigned(step, index) = place { Some((*step, *index)) } else { None };
        assert_eq!(seen.collect::<Vec<_>>(), model.steps(of));
        let kept = self.queue().kept(&self.topic).await.expect("what is kept");
        let of = |place: &Place| if let Place::Kept(step, index) = place { Some((*step, *index)) } else { None };
        assert_eq!(kept.into_iter().map(|(step, item)| (step, item.body[0])).collect::<Vec<_>>(), model.steps(of));
    }
}

fn settings() -> Settings {
    Settings {
        capacity: CAPACITY as u64,
        topic_capacity: BTreeMap::new(),
        lease: Duration::from_secs(LEASE),
        max_deliveries: MAX_DELIVERIES,
        max_crashes: MAX_CRASHES,
    }
}

/// Runs the operations on a queue that `open` opens, and after a crash again.
fn check(ops: Vec<Op>, open: Open) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::default());
        let run = RunId::new("model").expect("a valid name");
        let (topic, outputs) = (Topic::pairs(&run), Topic::rollouts(&run));
        let mut pair = Pair { queue: Some(open(clock.clone())), open, clock, topic, outputs, model: Model::default() };
        for op in ops {
            pair.apply(op).await;
            pair.compare().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn memory_follows_the_model(ops in prop::collection::vec(op(), 1..80)) {
        let ops = ops.into_iter().filter(|op| !matches!(op, Op::Reopen)).collect();
        check(ops, Box::new(|clock| memory(settings(), clock)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn embedded_follows_the_model(ops in prop::collection::vec(op(), 1..80)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("queue.redb");
        check(ops, Box::new(move |clock| embedded(&path, settings(), clock)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn redis_follows_the_model(ops in prop::collection::vec(op(), 1..60)) {
        // What a process held is not taken back when it ends, but when its leases run out.
        let ops = ops.into_iter().filter(|op| !matches!(op, Op::Reopen)).collect();
        if let Some(server) = super::redis::shared() {
            let url = server.database();
            check(ops, Box::new(move |clock| super::redis::open(&url, settings(), Some(clock))));
        }
    }
}
