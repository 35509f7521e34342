//! The state of a queue and the changes that it consists of: what is durable is a list of changes, applied in order.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use joust_core::RecordId;
use serde::{Deserialize, Serialize};

use crate::{Fence, Item, QueueStats, Topic, TopicStats};

/// Where an item is in its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It waits for a reader.
    Waiting,
    /// A reader has it until `until` (time since the clock's start); void when the process ends.
    Leased { token: u64, until: Duration },
    /// It belongs to a durable step, at a place in it.
    Assigned { step: u64, index: u64 },
    /// A checkpoint covers its step; it stays readable for replay.
    Kept { step: u64, index: u64 },
    /// It was given up.
    Dead { reason: String },
}

/// One item that is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) item: Item,
    pub(crate) deliveries: u32,
    /// Why its last delivery brought nothing, for the dead letters.
    pub(crate) trouble: Option<String>,
    pub(crate) phase: Phase,
}

/// Numbers of a topic that outlive its items.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) next_seq: u64,
    pub(crate) fence: u64,
    pub(crate) next_step: u64,
    pub(crate) put: u64,
    pub(crate) duplicates: u64,
    pub(crate) finished: u64,
    pub(crate) redeliveries: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
}

/// One row that changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// An item is held, anew or in another phase.
    Hold(u64, Entry),
    /// An item is not held any more; its id stays known.
    Forget(u64),
    /// A step's plan is durable.
    Plan(u64, Vec<u8>),
    /// A step's plan is not needed any more.
    Unplan(u64),
    /// The topic's numbers.
    Meta(Meta),
    /// An id is known although no item holds it (on opening a store).
    Know(RecordId),
}

/// One topic in memory.
#[derive(Debug, Default)]
pub(crate) struct TopicState {
    pub(crate) entries: BTreeMap<u64, Entry>,
    pub(crate) known: HashSet<RecordId>,
    pub(crate) plans: BTreeMap<u64, Vec<u8>>,
    pub(crate) meta: Meta,
}

/// All topics in memory.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<Topic, TopicState>,
    /// Leases are told apart by it; it begins anew with the process, as leases do.
    pub(crate) next_token: u64,
}

impl TopicState {
    /// Counts items that take room: waiting or leased.
    pub(crate) fn held(&self) -> usize {
        let takes_room = |entry: &&Entry| matches!(entry.phase, Phase::Waiting | Phase::Leased { .. });
        self.entries.values().filter(takes_room).count()
    }

    pub(crate) fn fence(&self) -> Fence {
        Fence(self.meta.fence)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Hold(seq, entry) => {
                self.known.insert(entry.item.id);
                self.entries.insert(seq, entry);
            }
            Change::Forget(seq) => drop(self.entries.remove(&seq)),
            Change::Plan(step, body) => drop(self.plans.insert(step, body)),
            Change::Unplan(step) => drop(self.plans.remove(&step)),
            Change::Meta(meta) => self.meta = meta,
            Change::Know(id) => drop(self.known.insert(id)),
        }
    }

    fn stats(&self) -> TopicStats {
        let mut stats = TopicStats {
            put: self.meta.put,
            duplicates: self.meta.duplicates,
            finished: self.meta.finished,
            dropped: self.meta.dropped.clone(),
            redeliveries: self.meta.redeliveries,
            ..TopicStats::default()
        };
        for entry in self.entries.values() {
            match &entry.phase {
                Phase::Waiting => stats.waiting += 1,
                Phase::Leased { .. } => stats.leased += 1,
                Phase::Assigned { .. } => stats.assigned += 1,
                Phase::Kept { .. } => {} // counted as finished when it was retired
                Phase::Dead { reason } => *stats.dead.entry(reason.clone()).or_default() += 1,
            }
        }
        stats
    }
}

impl State {
    /// Applies changes that are durable.
    pub(crate) fn apply(&mut self, changes: Vec<(Topic, Change)>) {
        for (topic, change) in changes {
            self.topics.entry(topic).or_default().apply(change);
        }
    }

    pub(crate) fn topic(&self, topic: &Topic) -> &TopicState {
        static EMPTY: std::sync::OnceLock<TopicState> = std::sync::OnceLock::new();
        self.topics.get(topic).unwrap_or_else(|| EMPTY.get_or_init(TopicState::default))
    }

    pub(crate) fn stats(&self, run: &joust_core::RunId) -> QueueStats {
        let topics = self.topics.iter().filter(|(topic, _)| topic.run == *run);
        QueueStats { topics: topics.map(|(topic, state)| (topic.name.clone(), state.stats())).collect() }
    }
}
