//! The accounts of a run's topics.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Error, Result, TopicName};

/// What became of the items of one topic.
///
/// `put = waiting + leased + assigned + finished + dropped + dead`: what was put is in exactly one of these places. `waiting`,
/// `leased`, `assigned` and `dead` are counted from the records themselves, the others as they happen, so the sum is a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TopicStats {
    /// Items taken in, each id once.
    pub put: u64,
    /// Items refused because their id was known; not part of `put`.
    pub duplicates: u64,
    /// Items that wait to be taken.
    pub waiting: u64,
    /// Items in a consumer's hands; one whose lease ran out counts here until it is handed out anew.
    pub leased: u64,
    /// Items that belong to a step which no checkpoint covers yet.
    pub assigned: u64,
    /// Items that moved on or whose step was retired.
    pub finished: u64,
    /// Finished items that are still readable as replay material; part of `finished`.
    pub kept: u64,
    /// Items that ended for a reason, by reason; not part of `finished`.
    pub dropped: BTreeMap<String, u64>,
    /// Dead letters by reason.
    pub dead: BTreeMap<String, u64>,
    /// Leases that ran out and were recovered.
    pub expired: u64,
    /// Leases that were void because their process had ended.
    pub crashed: u64,
    /// Items given back by their consumer to be tried again.
    pub retried: u64,
    /// Items that may wait.
    pub capacity: u64,
    /// Items leased, by consumer.
    pub holders: BTreeMap<String, u64>,
}

impl TopicStats {
    /// Returns the items that the topic can account for; equal to `put` unless one was lost or doubled.
    pub fn accounted(&self) -> u64 {
        let ended = self.finished + self.dropped.values().sum::<u64>() + self.dead.values().sum::<u64>();
        self.waiting + self.leased + self.assigned + ended
    }
}

/// The accounts of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct QueueStats {
    /// Each topic that was ever used.
    pub topics: BTreeMap<TopicName, TopicStats>,
}

impl QueueStats {
    /// Returns a topic's accounts; all zero for one that was never used.
    pub fn of(&self, name: &TopicName) -> TopicStats {
        self.topics.get(name).cloned().unwrap_or_default()
    }

    /// Checks that every topic accounts for each item it took in.
    ///
    /// # Errors
    /// [`Error::Unbalanced`] naming the first topic that does not.
    pub fn balance(&self) -> Result<()> {
        let wrong = self.topics.iter().find(|(_, stats)| stats.put != stats.accounted());
        wrong.map_or(Ok(()), |(name, stats)| {
            Err(Error::Unbalanced { topic: name.to_string(), put: stats.put, accounted: stats.accounted() })
        })
    }
}
