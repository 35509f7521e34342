//! A small store of ordered keys under one transaction at a time: all that the queue's rules need of a backend.

mod embedded;
mod memory;

use crate::Result;

pub(crate) use embedded::Embedded;
pub(crate) use memory::Memory;

/// The tables of a store; keys and values are bytes, keys sort as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Name to number: the schema version and the session.
    Meta,
    /// Run and name to the topic's counters.
    Topics,
    /// Topic and place to id: every id that was ever put.
    Ids,
    /// Topic and place to the item, while it is in the queue or kept.
    Bodies,
    /// Topic and place to the deliveries of what waits or is leased, and which of the two.
    Waiting,
    /// Topic and place to the deliveries of what is leased, in files of schema version 2 and before.
    Leased,
    /// Topic and step to its plan.
    Manifests,
    /// Topic and step to the places of its items.
    Steps,
    /// Topic and retired step to the places of the items that are kept.
    Kept,
    /// Topic and place to deliveries and reason of the dead letters.
    Dead,
}

impl Table {
    /// Every table, in the order of its number.
    pub(crate) const ALL: [Self; 10] = [
        Self::Meta,
        Self::Topics,
        Self::Ids,
        Self::Bodies,
        Self::Waiting,
        Self::Leased,
        Self::Manifests,
        Self::Steps,
        Self::Kept,
        Self::Dead,
    ];

    /// Returns the table's name in a file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Topics => "topics",
            Self::Ids => "ids",
            Self::Bodies => "bodies",
            Self::Waiting => "waiting",
            Self::Leased => "leased",
            Self::Manifests => "manifests",
            Self::Steps => "steps",
            Self::Kept => "kept",
            Self::Dead => "dead",
        }
    }
}

/// A key with its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Reading within one transaction.
pub(crate) trait View {
    /// Returns the value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Returns the first `limit` rows whose keys start with `prefix`, in order.
    fn scan(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Row>>;

    /// Says that a row does not hold what the queue writes.
    fn corrupt(&self, reason: String) -> crate::Error;
}

/// Reading and writing within one transaction.
pub(crate) trait Tables: View {
    /// Sets the value of a key.
    fn set(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()>;

    /// Removes a key and returns the value that it had.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Removes a key whose value nobody needs, which may be large.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<()>;
}

/// A place where transactions happen.
pub(crate) trait Store: Send + 'static {
    /// Whether calls wait for a disk and so must stay off the runtime's threads.
    const BLOCKS: bool;

    /// Runs a change; it is durable when this returns OK, and nothing of it is left when the change fails.
    fn write<T>(&mut self, change: impl FnOnce(&mut dyn Tables) -> Result<T>) -> Result<T>;

    /// Looks at what was last written.
    fn read<T>(&self, look: impl FnOnce(&dyn View) -> Result<T>) -> Result<T>;
}
