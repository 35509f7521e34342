//! What goes into and comes out of a queue.

use std::{collections::BTreeMap, fmt, time::Duration};

use joust_core::{RecordId, RunId};
use serde::{Deserialize, Serialize};

/// A stream of items of one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Topic {
    /// The run.
    pub run: RunId,
    /// Name within the run.
    pub name: String,
}

impl Topic {
    /// Names a topic of a run.
    pub fn new(run: &RunId, name: &str) -> Self {
        Self { run: run.clone(), name: name.to_owned() }
    }

    /// Names the topic of prompts to answer.
    pub fn prompts(run: &RunId) -> Self {
        Self::new(run, "prompts")
    }

    /// Names the topic of answered prompts to judge.
    pub fn rollouts(run: &RunId) -> Self {
        Self::new(run, "rollouts")
    }

    /// Names the topic of outcomes to train on.
    pub fn pairs(run: &RunId) -> Self {
        Self::new(run, "pairs")
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.name)
    }
}

/// One item: an id that says what it is, and bytes that the queue does not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Content-derived id: work done twice has one id.
    pub id: RecordId,
    /// The record.
    pub body: Vec<u8>,
    /// W3C trace context of its maker.
    pub trace: Option<String>,
}

/// Name of a reader, for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer(String);

impl Consumer {
    /// Names a reader.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

/// The right to finish one item, until it runs out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Topic of the item.
    pub topic: Topic,
    /// The item's place in the topic.
    pub seq: u64,
    /// Tells this lease from every other one of the item.
    pub token: u64,
}

/// A leased item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The right to finish it.
    pub lease: Lease,
    /// The item.
    pub item: Item,
    /// Times it was delivered, this one included.
    pub deliveries: u32,
}

/// What becomes of a leased item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Its output, if any, is put in the same commit.
    Moved,
    /// Nothing follows from it, for a counted reason.
    Dropped(String),
    /// It goes back to its place, or to the dead letters with this reason when it was delivered too often.
    Retry(String),
}

/// What a put did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Items that are new.
    pub added: usize,
    /// Items whose id the topic had held before.
    pub duplicates: usize,
}

/// Orders the writers of a topic: only the newest one's assignments count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence(pub u64);

/// The plan of one step as the queue keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepManifest {
    /// The step; steps are consecutive from 0.
    pub step: u64,
    /// The plan, which the queue does not read.
    pub body: Vec<u8>,
}

/// A durable step: its plan and its items in the order of their leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedStep {
    /// The plan.
    pub manifest: StepManifest,
    /// The items.
    pub items: Vec<Item>,
}

/// An item that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The item.
    pub item: Item,
    /// Why.
    pub reason: String,
}

/// Limits of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Items that a topic holds waiting or leased, by topic name; others get `default_capacity`.
    pub capacity: BTreeMap<String, usize>,
    /// Capacity of topics without one of their own.
    pub default_capacity: usize,
    /// How long a lease holds without renewal.
    pub lease: Duration,
    /// Deliveries after which an item is given up.
    pub max_deliveries: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { capacity: BTreeMap::new(), default_capacity: 65_536, lease: Duration::from_secs(60), max_deliveries: 5 }
    }
}

impl Settings {
    /// Returns the capacity of a topic.
    pub fn capacity_of(&self, topic: &Topic) -> usize {
        self.capacity.get(&topic.name).copied().unwrap_or(self.default_capacity)
    }
}
