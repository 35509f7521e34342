//! What goes in and comes out: topics, items, leases, steps.

use std::{fmt, sync::Arc};

use joust_core::{RecordId, RunId};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Name of a topic: 1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(String);

impl TopicName {
    /// Parses a topic name.
    ///
    /// # Errors
    /// [`Error::TopicName`] if a key could not hold it.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let valid = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if valid { Ok(Self(name)) } else { Err(Error::TopicName(name)) }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TopicName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> Self {
        name.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line of waiting records of one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Topic {
    /// The run that the records belong to.
    pub run: RunId,
    /// Which line.
    pub name: TopicName,
}

impl Topic {
    /// Names a topic of a run.
    ///
    /// # Errors
    /// [`Error::TopicName`] if a key could not hold the name.
    pub fn new(run: &RunId, name: impl Into<String>) -> Result<Self> {
        Ok(Self { run: run.clone(), name: TopicName::new(name)? })
    }

    /// Names the line of prompts that wait for answers.
    pub fn prompts(run: &RunId) -> Self {
        Self { run: run.clone(), name: TopicName("prompts".into()) }
    }

    /// Names the line of rollouts that wait for a judge.
    pub fn rollouts(run: &RunId) -> Self {
        Self { run: run.clone(), name: TopicName("rollouts".into()) }
    }

    /// Names the line of preferences of people that wait for a step to join.
    pub fn feedback(run: &RunId) -> Self {
        Self { run: run.clone(), name: TopicName("feedback".into()) }
    }

    /// Names the line of outcomes that wait for the learner.
    pub fn pairs(run: &RunId) -> Self {
        Self { run: run.clone(), name: TopicName("pairs".into()) }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.name)
    }
}

/// One record as the queue sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Identity: an id is put once per topic.
    pub id: RecordId,
    /// The encoded record.
    pub body: Vec<u8>,
    /// Trace context (`traceparent`) of the work that made it.
    pub trace: Option<String>,
}

/// Who takes items; a stable name, for reports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Consumer(Arc<str>);

impl Consumer {
    /// Names a consumer.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into().into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The right to decide what becomes of an item, until the item is handed to someone else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Topic of the item.
    pub topic: Topic,
    /// The item.
    pub id: RecordId,
    /// Place of the item in its topic, in put order from 0.
    pub place: u64,
    /// Tells this lease from every other one, of this process and of those before it.
    pub token: u64,
}

/// An item that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The right to it.
    pub lease: Lease,
    /// The item.
    pub item: Item,
    /// Times it was handed out, this one included: 1 for the first.
    pub deliveries: u32,
}

/// What became of the items of one put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Items that are new.
    pub added: u64,
    /// Items whose id the topic had seen before; they changed nothing.
    pub duplicates: u64,
}

/// What becomes of a leased item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Its successor goes on in its place.
    Moved,
    /// It ends here, for this reason, which is counted.
    Dropped(String),
    /// It goes back to its place, or to the dead letters with this reason once it was tried too often.
    Retry(String),
}

/// The right of one learner to assign steps of a topic, until another one takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// The plan of one step, opaque to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepManifest {
    /// The step, from 0; consecutive.
    pub step: u64,
    /// The encoded plan.
    pub body: Vec<u8>,
}

/// A step that was assigned, with all that its replay needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedStep {
    /// The plan.
    pub manifest: StepManifest,
    /// Its items, in the order of the leases that were assigned.
    pub items: Vec<Item>,
}

/// An item that was tried too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The item.
    pub item: Item,
    /// Why it was given up.
    pub reason: String,
    /// Times it was handed out.
    pub deliveries: u32,
}
