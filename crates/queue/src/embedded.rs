//! The redb file behind an embedded queue: every list of changes is one transaction, flushed before it counts.

use std::path::{Path, PathBuf};

use joust_core::{RecordId, RunId};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    Error, Result, Topic,
    plan::Changes,
    state::{Change, Entry, Meta, Phase, State},
};

/// Version of the tables below.
const SCHEMA: u64 = 1;

type Key<'a> = (&'a str, &'a str, u64);
const HEAD: TableDefinition<'_, &str, u64> = TableDefinition::new("head");
const ENTRIES: TableDefinition<'_, Key<'_>, &[u8]> = TableDefinition::new("entries");
const PLANS: TableDefinition<'_, Key<'_>, &[u8]> = TableDefinition::new("plans");
const METAS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("metas");
const KNOWN: TableDefinition<'_, (&str, &str, &[u8; 16]), ()> = TableDefinition::new("known");

/// The open file.
pub(crate) struct Store {
    path: PathBuf,
    database: Database,
}

impl Store {
    /// Opens or makes the file and reads the state that it holds.
    pub(crate) fn open(path: &Path) -> Result<(Self, State)> {
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Error::Locked { path: path.into() },
            DatabaseError::UpgradeRequired(found) => {
                Error::Version { path: path.into(), found: u64::from(found), expected: SCHEMA }
            }
            DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => {
                Error::Corrupt { path: path.into(), reason }
            }
            DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() == std::io::ErrorKind::InvalidData =>
            {
                Error::Corrupt { path: path.into(), reason: error.to_string() }
            }
            other => Error::Storage { path: path.into(), reason: other.to_string() },
        })?;
        let store = Self { path: path.into(), database };
        store.check_version()?;
        let state = store.read().map_err(|error| store.storage(&error))??;
        Ok((store, state))
    }

    fn storage(&self, error: &redb::Error) -> Error {
        match error {
            redb::Error::Corrupted(reason) => Error::Corrupt { path: self.path.clone(), reason: reason.clone() },
            other => Error::Storage { path: self.path.clone(), reason: other.to_string() },
        }
    }

    fn check_version(&self) -> Result<()> {
        let found = (|| {
            let transaction = self.database.begin_write()?;
            let found = {
                let mut head = transaction.open_table(HEAD)?;
                let found = head.get("schema")?.map(|version| version.value());
                if found.is_none() {
                    head.insert("schema", SCHEMA)?;
                }
                transaction.open_table(ENTRIES)?;
                transaction.open_table(PLANS)?;
                transaction.open_table(METAS)?;
                transaction.open_table(KNOWN)?;
                found
            };
            transaction.commit()?;
            Ok::<_, redb::Error>(found.unwrap_or(SCHEMA))
        })();
        match found.map_err(|error| self.storage(&error))? {
            SCHEMA => Ok(()),
            found => Err(Error::Version { path: self.path.clone(), found, expected: SCHEMA }),
        }
    }

    fn read(&self) -> std::result::Result<Result<State>, redb::Error> {
        let corrupt = |reason: String| Error::Corrupt { path: self.path.clone(), reason };
        let topic = |run: &str, name: &str| {
            let run = RunId::new(run).map_err(|error| corrupt(error.to_string()))?;
            Ok(Topic::new(&run, name))
        };
        let mut changes = Changes::new();
        let mut collect = || -> std::result::Result<Result<()>, redb::Error> {
            let transaction = self.database.begin_read()?;
            for row in transaction.open_table(METAS)?.iter()? {
                let (key, value) = row?;
                let meta: std::result::Result<Meta, _> = rmp_serde::from_slice(value.value());
                match (topic(key.value().0, key.value().1), meta) {
                    (Ok(topic), Ok(meta)) => changes.push((topic, Change::Meta(meta))),
                    (Err(error), _) => return Ok(Err(error)),
                    (_, Err(error)) => return Ok(Err(corrupt(error.to_string()))),
                }
            }
            for row in transaction.open_table(KNOWN)?.iter()? {
                let (key, _) = row?;
                let (run, name, id) = key.value();
                match topic(run, name) {
                    Ok(topic) => changes.push((topic, Change::Know(RecordId::from_bytes(*id)))),
                    Err(error) => return Ok(Err(error)),
                }
            }
            for row in transaction.open_table(PLANS)?.iter()? {
                let (key, value) = row?;
                match topic(key.value().0, key.value().1) {
                    Ok(topic) => changes.push((topic, Change::Plan(key.value().2, value.value().to_vec()))),
                    Err(error) => return Ok(Err(error)),
                }
            }
            for row in transaction.open_table(ENTRIES)?.iter()? {
                let (key, value) = row?;
                let entry: std::result::Result<Entry, _> = rmp_serde::from_slice(value.value());
                match (topic(key.value().0, key.value().1), entry) {
                    (Ok(topic), Ok(entry)) => changes.push((topic, Change::Hold(key.value().2, void_lease(entry)))),
                    (Err(error), _) => return Ok(Err(error)),
                    (_, Err(error)) => return Ok(Err(corrupt(error.to_string()))),
                }
            }
            Ok(Ok(()))
        };
        let result = collect()?;
        Ok(result.map(|()| {
            let mut state = State::default();
            state.apply(changes);
            state
        }))
    }

    /// Writes changes in one flushed transaction.
    pub(crate) fn write(&self, changes: &Changes) -> Result<()> {
        self.try_write(changes).map_err(|error| self.storage(&error))
    }

    fn try_write(&self, changes: &Changes) -> std::result::Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut plans = transaction.open_table(PLANS)?;
            let mut metas = transaction.open_table(METAS)?;
            let mut known = transaction.open_table(KNOWN)?;
            for (topic, change) in changes {
                let (run, name) = (topic.run.as_str(), topic.name.as_str());
                match change {
                    Change::Hold(seq, entry) => {
                        entries.insert((run, name, *seq), encode(entry).as_slice())?;
                        known.insert((run, name, entry.item.id.as_bytes()), ())?;
                    }
                    Change::Forget(seq) => drop(entries.remove((run, name, *seq))?),
                    Change::Plan(step, body) => drop(plans.insert((run, name, *step), body.as_slice())?),
                    Change::Unplan(step) => drop(plans.remove((run, name, *step))?),
                    Change::Meta(meta) => drop(metas.insert((run, name), encode(meta).as_slice())?),
                    Change::Know(id) => drop(known.insert((run, name, id.as_bytes()), ())?),
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("rows hold only plain data, which always encodes")
}

/// The process that held the lease is gone with its lock on the file.
fn void_lease(mut entry: Entry) -> Entry {
    if matches!(entry.phase, Phase::Leased { .. }) {
        entry.phase = Phase::Waiting;
        entry.trouble = Some("the process ended while it was worked on".into());
    }
    entry
}
