//! How a queue is set up and opened.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    Clock, Error, Queue, Result, SystemClock, TopicName,
    core::Core,
    handle::Handle,
    store::{Embedded, Memory, Store},
};

/// What a queue allows before it pushes back, recovers or gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Items that may wait in a topic; 1 or more. Leased and assigned ones do not count: a consumer that gathers a whole step
    /// before it can finish any item must never stand in its own way.
    pub capacity: u64,
    /// Capacities of single topics, instead of `capacity`.
    pub topic_capacity: BTreeMap<TopicName, u64>,
    /// How long an item stays with a consumer that does not renew. Too short, and slow work is done twice; too long, and the
    /// work of a consumer that hangs waits that long.
    pub lease: Duration,
    /// Times an item is tried before it becomes a dead letter; 1 or more.
    pub max_deliveries: u32,
    /// Times the process may end while it holds an item before the item becomes a dead letter; 1 or more. It is counted apart
    /// and higher than `max_deliveries`, because a kill makes suspects of all that was leased, and only one may be the poison.
    pub max_crashes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capacity: 65_536,
            topic_capacity: BTreeMap::new(),
            lease: Duration::from_secs(120),
            max_deliveries: 5,
            max_crashes: 20,
        }
    }
}

impl Settings {
    /// Returns settings for a queue that several processes share, which may be killed.
    pub fn shared() -> Self {
        // One that lives renews its leases three times meanwhile; a process that was killed looks like one that was slow, so that more
        // deliveries than usual are no sign of poison.
        Self { lease: Duration::from_secs(6), max_deliveries: 20, ..Self::default() }
    }

    /// Returns how many items may wait in a topic.
    pub fn capacity_of(&self, topic: &TopicName) -> u64 {
        self.topic_capacity.get(topic).copied().unwrap_or(self.capacity)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let one_or_more = |name: &str, value: u64| match value {
            0 => Err(Error::Setting { name: name.to_owned(), value: "0".into(), want: "1 or more" }),
            _ => Ok(()),
        };
        one_or_more("capacity", self.capacity)?;
        for (topic, capacity) in &self.topic_capacity {
            one_or_more(&format!("topic_capacity.{topic}"), *capacity)?;
        }
        one_or_more("max_deliveries", self.max_deliveries.into())?;
        one_or_more("max_crashes", self.max_crashes.into())?;
        if self.lease.is_zero() {
            return Err(Error::Setting { name: "lease".into(), value: "0 s".into(), want: "more than 0 s" });
        }
        Ok(())
    }
}

/// Where items wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// In memory: nothing outlives the process.
    Memory,
    /// In one file, held by one process at a time; made when it does not exist.
    Embedded {
        /// The file.
        path: PathBuf,
    },
}

/// A queue to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Where items wait.
    pub backend: Backend,
    /// What it allows.
    pub settings: Settings,
}

/// Opens a queue under the machine's clock; blocks while a file that was not closed is repaired.
///
/// # Errors
/// [`Error::Setting`] for a setting out of range; [`Error::Version`], [`Error::Locked`], [`Error::Corrupt`],
/// [`Error::DiskFull`] or [`Error::Storage`] for a file that cannot be used.
pub fn open(config: &QueueConfig) -> Result<Arc<dyn Queue>> {
    open_with_clock(config, Arc::new(SystemClock::default()))
}

/// Opens a queue under another clock.
///
/// # Errors
/// As [`open`].
pub fn open_with_clock(config: &QueueConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn Queue>> {
    config.settings.check()?;
    let settings = config.settings.clone();
    Ok(match &config.backend {
        Backend::Memory => handle(Memory::default(), settings, clock)?,
        Backend::Embedded { path } => handle(Embedded::open(path)?, settings, clock)?,
    })
}

/// Opens a queue in memory under the machine's clock.
///
/// # Errors
/// [`Error::Setting`] for a setting out of range.
pub fn open_memory(settings: Settings) -> Result<Arc<dyn Queue>> {
    open(&QueueConfig { backend: Backend::Memory, settings })
}

/// Opens or makes a queue in a file under the machine's clock.
///
/// # Errors
/// As [`open`].
pub fn open_embedded(path: &Path, settings: Settings) -> Result<Arc<dyn Queue>> {
    open(&QueueConfig { backend: Backend::Embedded { path: path.to_owned() }, settings })
}

/// Puts the rules over a store.
pub(crate) fn handle(store: impl Store, settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<dyn Queue>> {
    Ok(Arc::new(Handle::new(Core::open(store, settings, clock.clone())?, clock)))
}
