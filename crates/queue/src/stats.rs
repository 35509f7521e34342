//! Counts of a queue and the identity that they must satisfy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicStats {
    /// Items ever put, without duplicates.
    pub put: u64,
    /// Puts of ids that the topic had held before.
    pub duplicates: u64,
    /// Items that wait for a reader.
    pub waiting: u64,
    /// Items that a reader works on.
    pub leased: u64,
    /// Items of durable steps that no checkpoint covers yet.
    pub assigned: u64,
    /// Items that were moved on or trained.
    pub finished: u64,
    /// Items that nothing followed from, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Items given up, by reason; they can be requeued.
    pub dead: BTreeMap<String, u64>,
    /// Deliveries beyond an item's first.
    pub redeliveries: u64,
}

/// Counts of every topic of a run, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Counts by topic name.
    pub topics: BTreeMap<String, TopicStats>,
}

impl TopicStats {
    /// Returns put − (finished + dropped + dead + waiting + leased + assigned): 0 iff nothing was lost or doubled.
    pub fn imbalance(&self) -> i64 {
        let gone = self.finished + self.dropped.values().sum::<u64>() + self.dead.values().sum::<u64>();
        self.put as i64 - (gone + self.waiting + self.leased + self.assigned) as i64
    }
}

impl QueueStats {
    /// Returns the topics whose accounts do not add up, with by how much.
    pub fn imbalances(&self) -> BTreeMap<String, i64> {
        let off = self.topics.iter().map(|(name, stats)| (name.clone(), stats.imbalance()));
        off.filter(|(_, imbalance)| *imbalance != 0).collect()
    }
}
