//! The store in one redb file, held by one process at a time.
//!
//! Every transaction is synced to the disk before it returns, also the one that hands items out: the delivery counts must
//! survive a record that kills its process, or it would kill every process after it too.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use joust_core::failpoint;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableHandle, WriteTransaction, backends::FileBackend,
};

use crate::{
    Error, Result,
    store::{Row, Store, Table, Tables, View},
};

/// Version of the tables' keys and values. Files of the ones from [`OLDEST`] on can be read and become files of this one; others are refused.
const SCHEMA: u64 = 3;
const OLDEST: u64 = 1;
const SCHEMA_KEY: &[u8] = b"schema";
/// What redb may hold in memory of the file.
const CACHE_BYTES: usize = 64 << 20;

type Bytes = &'static [u8];

const fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

/// A redb file.
pub(crate) struct Embedded {
    /// `None` only while it is dropped.
    db: Option<Database>,
    path: PathBuf,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // A database that has panicked panics again when it is closed; what it acknowledged is on the disk already.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.db.take())));
    }
}

impl Embedded {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if holds_bytes(path) {
            return Self::build(path, |builder| builder.create(path));
        }
        Self::make(path)
    }

    /// Makes the file beside its place and moves it there whole: redb refuses a file whose maker was killed half-way.
    fn make(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| storage(path, error);
        let draft = path.with_added_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&draft);
        let file = file.map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::Locked { path: path.to_owned() },
            TryLockError::Error(error) => failed(error),
        })?;
        // Another process may have made the file between the first look and the lock.
        if holds_bytes(path) {
            return Self::build(path, |builder| builder.create(path));
        }
        file.set_len(0).map_err(failed)?;
        let store = Self::build(path, |builder| builder.create_with_backend(FileBackend::new(file)?))?;
        fs::rename(&draft, path).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(store)
    }

    /// Opens a queue over another medium, for tests of a failing one.
    #[cfg(test)]
    pub(crate) fn over(path: &Path, medium: impl redb::StorageBackend) -> Result<Self> {
        Self::build(path, |builder| builder.create_with_backend(medium))
    }

    fn build(path: &Path, open: impl FnOnce(&Builder) -> std::result::Result<Database, DatabaseError>) -> Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let mut store = guard(path, || {
            let db = open(&builder).map_err(|error| storage(path, error))?;
            let store = Self { db: Some(db), path: path.to_owned() };
            store.check_schema()?;
            Ok(store)
        })?;
        store.write(|tables| {
            // From now on every table can be read.
            Table::ALL.into_iter().try_for_each(|table| tables.get(table, b"").map(drop))?;
            tables.set(Table::Meta, SCHEMA_KEY, &SCHEMA.to_be_bytes())
        })?;
        Ok(store)
    }

    /// Checks the version before anything is written, so that a refused file stays as it is.
    fn check_schema(&self) -> Result<()> {
        let read = self.begin_read()?;
        let mut tables = read.list_tables().map_err(|error| storage(&self.path, error))?;
        let Some(first) = tables.next() else { return Ok(()) };
        let foreign = || Error::Corrupt {
            path: self.path.clone(),
            reason: format!("it holds a table {:?} but no schema version", first.name()),
        };
        let meta = read.open_table(definition(Table::Meta)).map_err(|_| foreign())?;
        let found = meta.get(SCHEMA_KEY).map_err(|error| storage(&self.path, error))?.ok_or_else(foreign)?;
        let found = u64::from_be_bytes(found.value().try_into().map_err(|_| foreign())?);
        if (OLDEST..=SCHEMA).contains(&found) {
            return Ok(());
        }
        Err(Error::Version { path: self.path.clone(), found, expected: SCHEMA })
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("only dropping takes it out")
    }

    fn begin_read(&self) -> Result<ReadTransaction> {
        self.db().begin_read().map_err(|error| storage(&self.path, error))
    }
}

impl Store for Embedded {
    const BLOCKS: bool = true;

    fn write<T>(&mut self, change: impl FnOnce(&mut dyn Tables) -> Result<T>) -> Result<T> {
        guard(&self.path, || {
            let txn = self.db().begin_write().map_err(|error| storage(&self.path, error))?;
            let mut tables = Writing { txn: &txn, tables: RefCell::default(), path: &self.path };
            let out = change(&mut tables)?;
            drop(tables);
            failpoint::pass("queue_before_commit");
            txn.commit().map_err(|error| storage(&self.path, error))?;
            failpoint::pass("queue_after_commit");
            Ok(out)
        })
    }

    fn read<T>(&self, look: impl FnOnce(&dyn View) -> Result<T>) -> Result<T> {
        guard(&self.path, || {
            let txn = self.begin_read()?;
            let open = |table| txn.open_table(definition(table)).map_err(|error| storage(&self.path, error));
            let tables = Table::ALL.into_iter().map(open).collect::<Result<_>>()?;
            look(&Reading { tables, path: &self.path })
        })
    }
}

/// Runs a look or a change; redb checks parts of a damaged file by assertions, which must not take the process down.
fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let corrupt = |_| Err(Error::Corrupt { path: path.to_owned(), reason: "its pages contradict each other".into() });
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(corrupt)
}

fn holds_bytes(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

struct Reading<'a> {
    tables: Vec<ReadOnlyTable<Bytes, Bytes>>,
    path: &'a Path,
}

impl View for Reading<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        get(&self.tables[table as usize], key).map_err(|error| storage(self.path, error))
    }

    fn scan(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Row>> {
        scan(&self.tables[table as usize], prefix, limit).map_err(|error| storage(self.path, error))
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Corrupt { path: self.path.to_owned(), reason }
    }
}

struct Writing<'a> {
    txn: &'a WriteTransaction,
    /// Opened when they are first needed: each costs as much at the commit as a few rows.
    tables: RefCell<[Option<redb::Table<'a, Bytes, Bytes>>; Table::ALL.len()]>,
    path: &'a Path,
}

impl<'a> Writing<'a> {
    fn with<T, E: Into<redb::Error>>(
        &self,
        table: Table,
        work: impl FnOnce(&mut redb::Table<'a, Bytes, Bytes>) -> std::result::Result<T, E>,
    ) -> Result<T> {
        let place = &mut self.tables.borrow_mut()[table as usize];
        if place.is_none() {
            let opened = self.txn.open_table(definition(table));
            *place = Some(opened.map_err(|error| storage(self.path, error))?);
        }
        work(place.as_mut().expect("it was opened above")).map_err(|error| storage(self.path, error))
    }
}

impl View for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(table, |table| get(table, key))
    }

    fn scan(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Row>> {
        self.with(table, |table| scan(table, prefix, limit))
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Corrupt { path: self.path.to_owned(), reason }
    }
}

impl Tables for Writing<'_> {
    fn set(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.with(table, |table| table.insert(key, value).map(drop))
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(table, |table| Ok::<_, redb::StorageError>(table.remove(key)?.map(|old| old.value().to_vec())))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.with(table, |table| table.remove(key).map(drop))
    }
}

type Stored<T> = std::result::Result<T, redb::StorageError>;

fn get(table: &impl ReadableTable<Bytes, Bytes>, key: &[u8]) -> Stored<Option<Vec<u8>>> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn scan(table: &impl ReadableTable<Bytes, Bytes>, prefix: &[u8], limit: usize) -> Stored<Vec<Row>> {
    let mut rows = Vec::new();
    for row in table.range::<&[u8]>(prefix..)?.take(limit) {
        let (key, value) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        rows.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(rows)
}

/// Says what a failure of redb means to who runs the queue.
fn storage(path: &Path, error: impl Into<redb::Error>) -> Error {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => Error::Locked { path },
        redb::Error::Io(error) if has_no_room(&error) => Error::DiskFull { path },
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Error::Corrupt { path, reason: error.to_string() }
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::Corrupt { path, reason: "it is cut off".into() }
        }
        redb::Error::Corrupted(reason) => Error::Corrupt { path, reason },
        redb::Error::UpgradeRequired(version) => {
            Error::Corrupt { path, reason: format!("it has the old redb file format {version}") }
        }
        error => Error::Storage { path, reason: error.to_string() },
    }
}

fn has_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
