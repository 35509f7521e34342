//! Planning operations: from the state and the time to the changes that an operation makes, or to why it is refused. Pure.

use std::{collections::BTreeMap, time::Duration};

use joust_core::RecordId;

use crate::{
    Done, Error, Fence, Item, Lease, Leased, PutReport, Result, Settings, StepManifest, Topic,
    state::{Change, Entry, Meta, Phase, State, TopicState},
};

/// Changes in order, each with its topic.
pub(crate) type Changes = Vec<(Topic, Change)>;

/// An operation's view on state, limits and time.
pub(crate) struct Planner<'a> {
    pub(crate) state: &'a State,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Duration,
}

impl Planner<'_> {
    /// Plans a put at the end of a topic whose numbers are `meta`.
    fn append(&self, topic: &Topic, meta: &mut Meta, items: Vec<Item>, changes: &mut Changes) -> Result<PutReport> {
        let state = self.state.topic(topic);
        let mut batch = std::collections::HashSet::new();
        let (new, old): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| !state.known.contains(&item.id) && batch.insert(item.id));
        let (held, capacity) = (state.held(), self.settings.capacity_of(topic));
        // A batch larger than the capacity must pass somehow: an empty topic takes any.
        if held > 0 && !new.is_empty() && held + new.len() > capacity {
            return Err(Error::Full { topic: topic.clone(), held, capacity });
        }
        let report = PutReport { added: new.len(), duplicates: old.len() };
        meta.put += report.added as u64;
        meta.duplicates += report.duplicates as u64;
        for item in new {
            let entry = Entry { item, deliveries: 0, trouble: None, phase: Phase::Waiting };
            changes.push((topic.clone(), Change::Hold(meta.next_seq, entry)));
            meta.next_seq += 1;
        }
        Ok(report)
    }

    pub(crate) fn put(&self, topic: &Topic, items: Vec<Item>) -> Result<(Changes, PutReport)> {
        let mut meta = self.state.topic(topic).meta.clone();
        let mut changes = Changes::new();
        let report = self.append(topic, &mut meta, items, &mut changes)?;
        changes.push((topic.clone(), Change::Meta(meta)));
        Ok((changes, report))
    }

    /// Plans a take; `token` is the first free lease token.
    pub(crate) fn take(&self, topic: &Topic, max: usize, token: u64) -> (Changes, Vec<Leased>) {
        let state = self.state.topic(topic);
        let mut meta = state.meta.clone();
        let (mut changes, mut leased) = (Changes::new(), Vec::new());
        for (seq, entry) in &state.entries {
            if leased.len() == max {
                break;
            }
            let expired = match entry.phase {
                Phase::Waiting => false,
                Phase::Leased { until, .. } if until <= self.now => true,
                _ => continue,
            };
            let mut entry = entry.clone();
            if expired {
                entry.trouble = Some("lease ran out".into());
            }
            if entry.deliveries >= self.settings.max_deliveries {
                let reason = entry.trouble.clone().unwrap_or_else(|| "delivered too often".into());
                entry.phase = Phase::Dead { reason };
            } else {
                meta.redeliveries += u64::from(entry.deliveries > 0);
                entry.deliveries += 1;
                let token = token + leased.len() as u64;
                entry.phase = Phase::Leased { token, until: self.now + self.settings.lease };
                let lease = Lease { topic: topic.clone(), seq: *seq, token };
                leased.push(Leased { lease, item: entry.item.clone(), deliveries: entry.deliveries });
            }
            changes.push((topic.clone(), Change::Hold(*seq, entry)));
        }
        if !changes.is_empty() {
            changes.push((topic.clone(), Change::Meta(meta)));
        }
        (changes, leased)
    }

    /// Returns the entry under a lease that still holds.
    fn under(&self, lease: &Lease) -> Result<&Entry> {
        let entry = self.state.topic(&lease.topic).entries.get(&lease.seq);
        // A lease that ran out but was not taken over still holds: nobody else has the item.
        entry
            .filter(|entry| matches!(entry.phase, Phase::Leased { token, .. } if token == lease.token))
            .ok_or_else(|| Error::LeaseLost { topic: lease.topic.clone(), seq: lease.seq })
    }

    pub(crate) fn renew(&self, leases: &[Lease]) -> Result<Changes> {
        let until = self.now + self.settings.lease;
        let renewed = |lease: &Lease| {
            let mut entry = self.under(lease)?.clone();
            entry.phase = Phase::Leased { token: lease.token, until };
            Ok((lease.topic.clone(), Change::Hold(lease.seq, entry)))
        };
        leases.iter().map(renewed).collect()
    }

    pub(crate) fn commit(&self, done: Vec<(Lease, Done)>, next: Vec<(Topic, Item)>) -> Result<Changes> {
        let mut changes = Changes::new();
        let mut metas: BTreeMap<Topic, Meta> = BTreeMap::new();
        let meta_of = |topic: &Topic| self.state.topic(topic).meta.clone();
        for (lease, done) in done {
            let mut entry = self.under(&lease)?.clone();
            let meta = metas.entry(lease.topic.clone()).or_insert_with(|| meta_of(&lease.topic));
            let change = match done {
                Done::Moved => {
                    meta.finished += 1;
                    Change::Forget(lease.seq)
                }
                Done::Dropped(reason) => {
                    *meta.dropped.entry(reason).or_default() += 1;
                    Change::Forget(lease.seq)
                }
                Done::Retry(reason) => {
                    let given_up = entry.deliveries >= self.settings.max_deliveries;
                    entry.phase = if given_up { Phase::Dead { reason: reason.clone() } } else { Phase::Waiting };
                    entry.trouble = Some(reason);
                    Change::Hold(lease.seq, entry)
                }
            };
            changes.push((lease.topic, change));
        }
        let mut outputs: BTreeMap<Topic, Vec<Item>> = BTreeMap::new();
        for (topic, item) in next {
            outputs.entry(topic).or_default().push(item);
        }
        for (topic, items) in outputs {
            let meta = metas.entry(topic.clone()).or_insert_with(|| meta_of(&topic));
            self.append(&topic, meta, items, &mut changes)?;
        }
        changes.extend(metas.into_iter().map(|(topic, meta)| (topic, Change::Meta(meta))));
        Ok(changes)
    }

    pub(crate) fn fence(&self, topic: &Topic) -> (Changes, Fence) {
        let mut meta = self.state.topic(topic).meta.clone();
        meta.fence += 1;
        let fence = Fence(meta.fence);
        (vec![(topic.clone(), Change::Meta(meta))], fence)
    }

    fn fenced<'a>(&'a self, topic: &Topic, given: Fence) -> Result<&'a TopicState> {
        let state = self.state.topic(topic);
        let current = state.fence();
        if given == current { Ok(state) } else { Err(Error::Fenced { topic: topic.clone(), given, current }) }
    }

    pub(crate) fn assign(&self, topic: &Topic, leases: &[Lease], step: StepManifest, fence: Fence) -> Result<Changes> {
        let mut meta = self.fenced(topic, fence)?.meta.clone();
        if step.step != meta.next_step {
            return Err(Error::Step { topic: topic.clone(), given: step.step, next: meta.next_step });
        }
        meta.next_step += 1;
        let mut changes = Changes::new();
        for (index, lease) in leases.iter().enumerate() {
            let mut entry = self.under(lease)?.clone();
            entry.phase = Phase::Assigned { step: step.step, index: index as u64 };
            changes.push((topic.clone(), Change::Hold(lease.seq, entry)));
        }
        changes.push((topic.clone(), Change::Plan(step.step, step.body)));
        changes.push((topic.clone(), Change::Meta(meta)));
        Ok(changes)
    }

    pub(crate) fn retire(&self, topic: &Topic, through: u64, keep_from: u64, fence: Fence) -> Result<Changes> {
        let state = self.fenced(topic, fence)?;
        let mut meta = state.meta.clone();
        let mut changes = Changes::new();
        for (seq, entry) in &state.entries {
            let (step, index) = match entry.phase {
                Phase::Assigned { step, index } if step <= through => {
                    meta.finished += 1;
                    (step, index)
                }
                Phase::Kept { step, index } if step < keep_from => (step, index),
                _ => continue,
            };
            let change = if step >= keep_from {
                Change::Hold(*seq, Entry { phase: Phase::Kept { step, index }, ..entry.clone() })
            } else {
                Change::Forget(*seq)
            };
            changes.push((topic.clone(), change));
        }
        let plans = state.plans.range(..=through).map(|(step, _)| (topic.clone(), Change::Unplan(*step)));
        changes.extend(plans);
        if !changes.is_empty() {
            changes.push((topic.clone(), Change::Meta(meta)));
        }
        Ok(changes)
    }

    pub(crate) fn requeue(&self, topic: &Topic, ids: &[RecordId]) -> (Changes, usize) {
        let state = self.state.topic(topic);
        let mut meta = state.meta.clone();
        let mut changes = Changes::new();
        let dead = state.entries.iter().filter(|(_, entry)| matches!(entry.phase, Phase::Dead { .. }));
        let wanted: Vec<_> = dead.filter(|(_, entry)| ids.contains(&entry.item.id)).collect();
        for (seq, entry) in &wanted {
            changes.push((topic.clone(), Change::Forget(**seq)));
            let fresh = Entry { item: entry.item.clone(), deliveries: 0, trouble: None, phase: Phase::Waiting };
            changes.push((topic.clone(), Change::Hold(meta.next_seq, fresh)));
            meta.next_seq += 1;
        }
        let count = wanted.len();
        changes.push((topic.clone(), Change::Meta(meta)));
        (changes, count)
    }
}
