//! Looking at what the queue holds, without changing it.

use joust_core::RunId;

use super::{
    Core, TopicState,
    rows::{Tries, at, decode_item, decode_places, key},
};
use crate::{
    AssignedStep, DeadLetter, Error, Item, QueueStats, Result, StepManifest, Topic, TopicStats,
    store::{Store, Table, View},
};

impl<S: Store> Core<S> {
    pub(crate) fn assigned(&self, topic: &Topic, from_step: u64) -> Result<Vec<AssignedStep>> {
        let Some(state) = self.state.topics.get(topic) else { return Ok(Vec::new()) };
        self.store.read(|view| {
            let look = Look { view, topic, number: state.number };
            let mut steps = look.steps(Table::Steps)?;
            steps.retain(|(step, _)| *step >= from_step);
            let read = |(step, places): (u64, Vec<u64>)| {
                let body = view.get(Table::Manifests, &key(state.number, step))?;
                let body = body.ok_or_else(|| look.corrupt("the manifest of step", step))?;
                let items = places.into_iter().map(|place| look.item(place)).collect::<Result<_>>()?;
                Ok(AssignedStep { manifest: StepManifest { step, body }, items })
            };
            steps.into_iter().map(read).collect()
        })
    }

    pub(crate) fn kept(&self, topic: &Topic) -> Result<Vec<(u64, Item)>> {
        let Some(state) = self.state.topics.get(topic) else { return Ok(Vec::new()) };
        self.store.read(|view| {
            let look = Look { view, topic, number: state.number };
            let mut kept = Vec::new();
            for (step, places) in look.steps(Table::Kept)? {
                for place in places {
                    kept.push((step, look.item(place)?));
                }
            }
            Ok(kept)
        })
    }

    pub(crate) fn dead(&self, topic: &Topic) -> Result<Vec<DeadLetter>> {
        let Some(state) = self.state.topics.get(topic) else { return Ok(Vec::new()) };
        self.store.read(|view| {
            let look = Look { view, topic, number: state.number };
            let letter = |(place, tries, reason): (u64, Tries, String)| {
                Ok(DeadLetter { item: look.item(place)?, reason, deliveries: tries.deliveries })
            };
            look.dead()?.into_iter().map(letter).collect()
        })
    }

    pub(crate) fn stats(&self, run: &RunId) -> Result<QueueStats> {
        let mut stats = QueueStats::default();
        for (topic, state) in self.state.topics.iter().filter(|(topic, _)| topic.run == *run) {
            stats.topics.insert(topic.name.clone(), self.topic_stats(topic, state)?);
        }
        Ok(stats)
    }

    fn topic_stats(&self, topic: &Topic, state: &TopicState) -> Result<TopicStats> {
        let counters = state.counters.clone();
        let mut stats = TopicStats {
            put: counters.put,
            duplicates: counters.duplicates,
            finished: counters.finished,
            dropped: counters.dropped,
            expired: counters.expired,
            crashed: counters.crashed,
            retried: counters.retried,
            capacity: self.settings.capacity_of(&topic.name),
            waiting: state.waiting.len() as u64,
            leased: state.leases.len() as u64,
            ..TopicStats::default()
        };
        for held in state.leases.values() {
            *stats.holders.entry(held.holder.as_str().to_owned()).or_default() += 1;
        }
        self.store.read(|view| {
            let look = Look { view, topic, number: state.number };
            let items = |table| Ok::<_, Error>(look.steps(table)?.iter().map(|(_, places)| places.len() as u64).sum());
            (stats.assigned, stats.kept) = (items(Table::Steps)?, items(Table::Kept)?);
            for (_, _, reason) in look.dead()? {
                *stats.dead.entry(reason).or_default() += 1;
            }
            Ok(())
        })?;
        Ok(stats)
    }
}

/// One topic within one reading transaction.
struct Look<'a> {
    view: &'a dyn View,
    topic: &'a Topic,
    number: u32,
}

impl Look<'_> {
    fn prefix(&self) -> [u8; 4] {
        self.number.to_be_bytes()
    }

    fn corrupt(&self, what: &str, at: u64) -> Error {
        self.view.corrupt(format!("{what} {at} of topic {} is missing or cannot be read", self.topic))
    }

    fn item(&self, place: u64) -> Result<Item> {
        let row = self.view.get(Table::Bodies, &key(self.number, place))?;
        row.as_deref().and_then(decode_item).ok_or_else(|| self.corrupt("the record at place", place))
    }

    fn steps(&self, table: Table) -> Result<Vec<(u64, Vec<u64>)>> {
        let read = |(key, row): (Vec<u8>, Vec<u8>)| {
            let step = at(&key).ok_or_else(|| self.corrupt("the key of a step after", 0))?;
            Ok((step, decode_places(&row).ok_or_else(|| self.corrupt("the items of step", step))?))
        };
        self.view.scan(table, &self.prefix(), usize::MAX)?.into_iter().map(read).collect()
    }

    fn dead(&self) -> Result<Vec<(u64, Tries, String)>> {
        let read = |(key, row): (Vec<u8>, Vec<u8>)| {
            let place = at(&key)?;
            let (tries, reason) = row.split_at_checked(8)?;
            Some((place, Tries::decode(tries)?, String::from_utf8(reason.to_vec()).ok()?))
        };
        let rows = self.view.scan(Table::Dead, &self.prefix(), usize::MAX)?;
        rows.into_iter().map(|row| read(row).ok_or_else(|| self.corrupt("a dead letter after", 0))).collect()
    }
}
