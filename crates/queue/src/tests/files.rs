//! Opening: what a queue file may be, and what is said of one that it may not.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use joust_core::{RecordId, RunId};
use redb::{Database, ReadableTable, StorageBackend, TableDefinition, backends::FileBackend};

use super::embedded;
use crate::{
    Consumer, Done, Error, Item, ManualClock, Queue, Settings, StepManifest, Topic, open_embedded, settings::handle,
    store::Embedded,
};

const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

fn topic() -> Topic {
    Topic::pairs(&RunId::new("files").expect("a valid name"))
}

fn item(number: u64, bytes: usize) -> Item {
    Item { id: RecordId::derive(&[&number.to_le_bytes()]), body: vec![number as u8; bytes], trace: None }
}

fn reopen(path: &Path) -> Arc<dyn Queue> {
    embedded(path, Settings { max_crashes: 2, ..Settings::default() }, Arc::new(ManualClock::default()))
}

fn refused(path: &Path) -> Error {
    match open_embedded(path, Settings::default()) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn everything_outlives_the_process_but_leases() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let (topic, who) = (topic(), Consumer::new("w"));
    let queue = reopen(&path);
    queue.put(&topic, (0..6).map(|number| item(number, 9)).collect()).await.expect("a put");
    let mut leases: Vec<_> =
        queue.take(&topic, &who, 5, Duration::ZERO).await.expect("a take").into_iter().map(|l| l.lease).collect();
    let fence = queue.fence(&topic).await.expect("a fence");
    let held = leases.split_off(4);
    let dropped = leases.split_off(3).remove(0);
    queue.commit(vec![(dropped, Done::Dropped("tie".into()))], Vec::new()).await.expect("a commit");
    let later = leases.split_off(1);
    for (step, leases) in [leases, later].into_iter().enumerate() {
        let manifest = StepManifest { step: step as u64, body: vec![step as u8] };
        queue.assign(&topic, leases, manifest, fence).await.expect("an assignment");
    }
    queue.retire(&topic, 0, 0, fence).await.expect("a retirement");
    let before = queue.stats(&topic.run).await.expect("stats").of(&topic.name);
    drop(queue);

    let queue = reopen(&path);
    let stats = queue.stats(&topic.run).await.expect("stats");
    stats.balance().expect("the accounts add up");
    let after = stats.of(&topic.name);
    assert_eq!((before.leased, before.waiting, after.leased, after.waiting, after.crashed), (1, 1, 0, 2, 1));
    assert_eq!((after.finished, after.kept, after.assigned, after.dropped), (1, 1, 2, before.dropped));
    assert!(matches!(queue.renew(&held).await, Err(Error::LeaseLost { .. })), "a lease ends with its process");
    let taken = queue.take(&topic, &who, 9, Duration::ZERO).await.expect("a take");
    let seen: Vec<_> = taken.iter().map(|leased| (leased.item.clone(), leased.deliveries)).collect();
    assert_eq!(seen, [(item(4, 9), 2), (item(5, 9), 1)]);
    assert!(matches!(queue.renew(&held).await, Err(Error::LeaseLost { .. })), "nor does its token come again");
    let steps = queue.assigned(&topic, 0).await.expect("steps");
    assert_eq!((steps.len(), steps[0].items.clone()), (1, vec![item(1, 9), item(2, 9)]));
    assert_eq!(queue.fence(&topic).await.expect("a fence").0, fence.0 + 1);
    assert_eq!(queue.put(&topic, vec![item(0, 9)]).await.expect("a put").duplicates, 1);
}

#[tokio::test]
async fn an_item_that_ends_its_process_dies_and_others_do_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let (topic, who) = (topic(), Consumer::new("w"));
    reopen(&path).put(&topic, vec![item(0, 1), item(1, 1)]).await.expect("a put");
    let mut dead_processes = Vec::new();
    for delivery in 1..=2 {
        let queue = reopen(&path);
        let taken = queue.take(&topic, &who, 1, Duration::ZERO).await.expect("a take");
        assert_eq!((&taken[0].item, taken[0].deliveries), (&item(0, 1), delivery));
        let stale = queue.renew(&dead_processes).await;
        assert_eq!(stale.is_err(), delivery == 2, "no token comes again: {stale:?}");
        dead_processes.push(taken[0].lease.clone());
    }
    let queue = reopen(&path);
    let dead = queue.dead(&topic).await.expect("dead letters");
    assert_eq!((dead.len(), &dead[0].item), (1, &item(0, 1)));
    assert!(dead[0].reason.contains("process ended"), "{}", dead[0].reason);
    assert_eq!(queue.take(&topic, &who, 9, Duration::ZERO).await.expect("a take")[0].item, item(1, 1));
    queue.stats(&topic.run).await.expect("stats").balance().expect("the accounts add up");
}

#[tokio::test]
async fn a_file_of_the_first_version_is_read() {
    const IDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("ids");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let (topic, who) = (topic(), Consumer::new("w"));
    reopen(&path).put(&topic, vec![item(0, 9), item(1, 9)]).await.expect("a put");
    let database = Database::create(&path).expect("the file");
    let write = database.begin_write().expect("a transaction");
    let mut ids = write.open_table(IDS).expect("a table");
    for place in 0..2u64 {
        // The first version had topic and id as the key, and the place as the value.
        let number = &ids.first().expect("rows").expect("a row").0.value()[..4].to_vec();
        let id = item(place, 9).id;
        ids.remove([number, place.to_be_bytes().as_slice()].concat().as_slice()).expect("a row").expect("the id");
        ids.insert([number, id.as_bytes().as_slice()].concat().as_slice(), place.to_be_bytes().as_slice())
            .expect("set");
    }
    drop(ids);
    let mut meta = write.open_table(META).expect("a table");
    meta.insert(b"schema".as_slice(), 1u64.to_be_bytes().as_slice()).expect("a row");
    drop(meta);
    write.commit().expect("a commit");
    drop(database);
    for added in [1, 0] {
        let report = reopen(&path).put(&topic, vec![item(0, 9), item(1, 9), item(2, 9)]).await.expect("a put");
        assert_eq!((report.added, report.duplicates), (added, 3 - added));
    }
    let taken = reopen(&path).take(&topic, &who, 9, Duration::ZERO).await.expect("a take");
    assert_eq!(taken.into_iter().map(|leased| leased.item).collect::<Vec<_>>(), [item(0, 9), item(1, 9), item(2, 9)]);
}

#[tokio::test]
async fn a_file_of_the_second_version_is_read() {
    type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let (topic, who) = (topic(), Consumer::new("w"));
    let queue = reopen(&path);
    queue.put(&topic, vec![item(0, 9), item(1, 9)]).await.expect("a put");
    assert_eq!(queue.take(&topic, &who, 1, Duration::ZERO).await.expect("a take").len(), 1);
    drop(queue);
    let database = Database::create(&path).expect("the file");
    let write = database.begin_write().expect("a transaction");
    {
        // The second version had what is leased in a table of its own.
        let (mut waiting, mut leased) = (
            write.open_table(Rows::new("waiting")).expect("a table"),
            write.open_table(Rows::new("leased")).expect("a table"),
        );
        let key = waiting.first().expect("rows").expect("a row").0.value().to_vec();
        let tries = waiting.remove(key.as_slice()).expect("a row").expect("the row").value().to_vec();
        assert_eq!(tries, [0, 0, 0, 1, 0, 0, 0, 0, 1], "one delivery, leased");
        leased.insert(key.as_slice(), &tries[..8]).expect("set");
        let mut meta = write.open_table(META).expect("a table");
        meta.insert(b"schema".as_slice(), 2u64.to_be_bytes().as_slice()).expect("a row");
    }
    write.commit().expect("a commit");
    drop(database);
    // The lease of the process before is recovered, once.
    let queue = reopen(&path);
    let taken = queue.take(&topic, &who, 9, Duration::ZERO).await.expect("a take");
    let found: Vec<_> = taken.iter().map(|leased| (leased.item.clone(), leased.deliveries)).collect();
    assert_eq!(found, [(item(0, 9), 2), (item(1, 9), 1)]);
    let stats = queue.stats(&topic.run).await.expect("stats");
    assert_eq!((stats.topics[&topic.name].crashed, stats.topics[&topic.name].leased), (1, 2));
    stats.balance().expect("the accounts add up");
    drop((queue, taken));
    let stats = reopen(&path).stats(&topic.run).await.expect("stats");
    assert_eq!(stats.topics[&topic.name].crashed, 3, "the one of before, then both");
}

#[test]
fn a_file_of_another_version_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let database = Database::create(&path).expect("a file");
    let write = database.begin_write().expect("a transaction");
    write
        .open_table(META)
        .expect("a table")
        .insert(b"schema".as_slice(), 9u64.to_be_bytes().as_slice())
        .expect("a row");
    write.commit().expect("a commit");
    drop(database);
    let before = fs::read(&path).expect("the file");
    let error = refused(&path);
    assert!(matches!(error, Error::Version { found: 9, expected: 3, .. }), "{error}");
    assert!(error.to_string().contains("queue.redb") && error.to_string().contains("new folder"), "{error}");
    assert_eq!(fs::read(&path).expect("the file").len(), before.len());
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    fs::write(&path, b"these are my notes, not a queue").expect("a file");
    assert!(matches!(refused(&path), Error::Corrupt { .. }));
    assert_eq!(fs::read(&path).expect("the file"), b"these are my notes, not a queue");
    let path = folder.path().join("other.redb");
    let database = Database::create(&path).expect("a file");
    let write = database.begin_write().expect("a transaction");
    write.open_table(TableDefinition::<u64, u64>::new("theirs")).expect("a table");
    write.commit().expect("a commit");
    drop(database);
    let error = refused(&path);
    assert!(matches!(&error, Error::Corrupt { reason, .. } if reason.contains("theirs")), "{error}");
}

#[test]
fn a_file_in_use_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let _holder = reopen(&path);
    let error = refused(&path);
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(matches!(refused(&folder.path().join("none/queue.redb")), Error::Storage { .. }));
}

#[tokio::test]
async fn a_cut_file_is_refused_or_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.redb");
    let queue = reopen(&path);
    queue.put(&topic(), (0..200).map(|number| item(number, 1000)).collect()).await.expect("a put");
    drop(queue);
    let whole = fs::read(&path).expect("the file");
    let cut = folder.path().join("cut.redb");
    for share in 1..8 {
        fs::write(&cut, &whole[..whole.len() * share / 8]).expect("a file");
        match open_embedded(&cut, Settings::default()) {
            Ok(queue) => {
                let stats = queue.stats(&topic().run).await.expect("stats");
                stats.balance().expect("what is opened is whole");
                assert_eq!(stats.of(&topic().name).put, 200);
            }
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{share}/8: {error}"),
        }
    }
}

/// A file on a disk that has room for so many bytes.
#[derive(Debug)]
struct SmallDisk {
    file: FileBackend,
    room: Arc<AtomicU64>,
}

impl SmallDisk {
    fn open(path: &Path, room: &Arc<AtomicU64>) -> Self {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        Self { file: FileBackend::new(file.expect("a file")).expect("a backend"), room: room.clone() }
    }
}

impl StorageBackend for SmallDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match len <= self.room.load(Ordering::SeqCst) {
            true => self.file.set_len(len),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("queue.redb");
    let room = Arc::new(AtomicU64::new(4 << 20));
    let store = Embedded::over(&path, SmallDisk::open(&path, &room)).expect("room to begin");
    let queue = handle(store, Settings::default(), Arc::new(ManualClock::default())).expect("a queue");
    let mut acknowledged = 0;
    let error = loop {
        match queue.put(&topic(), vec![item(acknowledged, 64 << 10)]).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "the disk never filled");
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(acknowledged > 5);
    drop(queue);
    let queue = reopen(&path);
    let stats = queue.stats(&topic().run).await.expect("stats");
    stats.balance().expect("the accounts add up");
    assert_eq!(stats.of(&topic().name).waiting, acknowledged);
    assert_eq!(queue.put(&topic(), vec![item(acknowledged, 9)]).await.expect("a put").added, 1);
}

#[test]
fn settings_out_of_range_are_named() {
    let wrong = [
        (Settings { capacity: 0, ..Settings::default() }, "capacity"),
        (Settings { max_deliveries: 0, ..Settings::default() }, "max_deliveries"),
        (Settings { max_crashes: 0, ..Settings::default() }, "max_crashes"),
        (Settings { lease: Duration::ZERO, ..Settings::default() }, "lease"),
        (Settings { topic_capacity: [(topic().name, 0)].into(), ..Settings::default() }, "topic_capacity.pairs"),
    ];
    for (settings, key) in wrong {
        let refused = crate::open_memory(settings).err();
        assert!(matches!(&refused, Some(Error::Setting { name, .. }) if name == key), "{key}: {refused:?}");
    }
}
