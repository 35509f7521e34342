//! The queue on a real redis-server: the suite, several clients at once, a server that is killed, and what keeps one out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::FutureExt;
use joust_core::{RecordId, RunId};
use parking_lot::Mutex;
use rcgen::{CertificateParams, Issuer, KeyPair};

use super::in_time;
use crate::{
    Clock, Consumer, Done, Error, Item, Queue, RedisConfig, Settings, Topic, TopicName, conformance, open_redis,
    sandbox::RedisServer,
};

const WAIT: Duration = Duration::from_secs(60);

/// A server for all tests of this process; it ends with it.
pub(super) struct Shared {
    server: Mutex<RedisServer>,
    _folder: tempfile::TempDir,
    used: AtomicU64,
}

impl Shared {
    pub(super) fn port(&self) -> u16 {
        self.server.lock().port()
    }

    /// Returns the URL of an empty database.
    pub(super) fn database(&self) -> String {
        format!("{}/{}", self.server.lock().url(), self.used.fetch_add(1, Ordering::Relaxed))
    }
}

/// Returns the shared server; `None`, said aloud, where redis-server is not installed.
pub(super) fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
    let start = || {
        let folder = tempfile::tempdir().expect("a folder");
        let server = started(folder.path(), &["--databases", "4096"])?;
        Some(Shared { server: Mutex::new(server), _folder: folder, used: AtomicU64::new(0) })
    };
    SHARED.get_or_init(start).as_ref()
}

pub(super) fn started(folder: &Path, options: &[&str]) -> Option<RedisServer> {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    RedisServer::is_there_for(&test).then(|| RedisServer::start(folder, options).expect("redis-server starts"))
}

fn ask<T: redis::FromRedisValue>(url: &str, command: &[&str]) -> T {
    let mut connection = redis::Client::open(url).and_then(|client| client.get_connection()).expect("a connection");
    redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).expect("an answer")
}

/// Returns what a server tells of itself under a name.
pub(super) fn info(url: &str, name: &str) -> String {
    let told: String = ask(url, &["INFO"]);
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("it tells so").trim().to_owned()
}

/// Changes a setting of a server's.
pub(super) fn set(url: &str, name: &str, value: &str) {
    ask::<()>(url, &["CONFIG", "SET", name, value]);
}

fn config(url: &str) -> RedisConfig {
    RedisConfig { patience: Duration::from_secs(20), ..RedisConfig::new(url) }
}

/// Opens without a look at the server.
pub(super) fn open(url: &str, settings: Settings, clock: Option<Arc<dyn Clock>>) -> Arc<dyn Queue> {
    let config = RedisConfig { allow_unsafe: true, ..config(url) };
    open_redis(&config, settings, clock).now_or_never().expect("nothing is asked").expect("a queue on redis")
}

async fn refusal(config: &RedisConfig) -> Error {
    let config = RedisConfig { patience: Duration::ZERO, ..config.clone() };
    open_redis(&config, Settings::default(), None).await.err().expect("it is refused")
}

pub(super) fn item(number: u64) -> Item {
    Item { id: RecordId::derive(&[&number.to_le_bytes()]), body: number.to_le_bytes().to_vec(), trace: None }
}

pub(super) fn number_of(item: &Item) -> u64 {
    u64::from_le_bytes(item.body.as_slice().try_into().expect("eight bytes"))
}

fn topics() -> (Topic, Topic) {
    let run = RunId::new("traffic").expect("a valid name");
    (Topic::prompts(&run), Topic::rollouts(&run))
}

#[tokio::test]
async fn redis_conforms() {
    let Some(server) = shared() else { return };
    in_time(conformance::all(&mut |settings, clock| open(&server.database(), settings, Some(clock)))).await;
}

/// Keeps the putters waiting for the movers.
fn narrow() -> BTreeMap<TopicName, u64> {
    BTreeMap::from([(topics().0.name, 40)])
}

/// Puts numbers, four at a time.
async fn put(queue: Arc<dyn Queue>, numbers: std::ops::Range<u64>) {
    let (from, _) = topics();
    for first in numbers.clone().step_by(4) {
        let batch = (first..(first + 4).min(numbers.end)).map(item).collect();
        queue.put_when_room(&from, batch, WAIT).await.expect("room in time");
    }
}

/// Moves items on, until so many have arrived.
async fn move_on(queue: Arc<dyn Queue>, name: String, all: u64) {
    let ((from, to), who) = (topics(), Consumer::new(name));
    loop {
        let taken = queue.take(&from, &who, 3, Duration::from_millis(100)).await.expect("a take");
        if taken.is_empty() && queue.stats(&from.run).await.expect("stats").of(&to.name).put >= all {
            return;
        }
        let next = taken.iter().map(|leased| (to.clone(), item(number_of(&leased.item) + 1_000_000))).collect();
        let done = taken.into_iter().map(|leased| (leased.lease, Done::Moved)).collect();
        match queue.commit(done, next).await {
            // Slower than a lease: someone else moves them, under the same ids.
            Ok(()) | Err(Error::LeaseLost { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Runs four putters and four movers, each with a connection of its own, and checks that every item arrived once.
async fn traffic(url: &str, settings: &Settings, meanwhile: impl Future<Output = ()>) {
    const ALL: u64 = 800;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..4 {
        let part = ALL / 4 * i..ALL / 4 * (i + 1);
        tasks.spawn(put(open(url, settings.clone(), None), part));
        tasks.spawn(move_on(open(url, settings.clone(), None), format!("mover-{i}"), ALL));
    }
    meanwhile.await;
    while let Some(done) = tasks.join_next().await {
        done.expect("no task fails");
    }
    let (queue, (from, to)) = (open(url, Settings::default(), None), topics());
    let stats = queue.stats(&from.run).await.expect("stats");
    stats.balance().expect("the accounts add up");
    let (first, second) = (stats.of(&from.name), stats.of(&to.name));
    assert_eq!((first.put, first.finished, first.waiting, first.leased), (ALL, ALL, 0, 0));
    assert_eq!((second.put, second.waiting), (ALL, ALL));
    let arrived = queue.take(&to, &Consumer::new("end"), 2 * ALL as usize, Duration::ZERO).await.expect("a take");
    let numbers: BTreeSet<u64> = arrived.iter().map(|leased| number_of(&leased.item) - 1_000_000).collect();
    assert_eq!((arrived.len() as u64, numbers), (ALL, (0..ALL).collect()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_move_each_item_once() {
    let Some(server) = shared() else { return };
    let settings = Settings { topic_capacity: narrow(), ..Settings::default() };
    in_time(traffic(&server.database(), &settings, async {})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    // With `everysec` Redis answers before it writes while a sync takes long, and a kill then loses what it answered.
    let Some(mut server) = started(folder.path(), &["--appendfsync", "always"]) else { return };
    let url = server.url();
    let lease = Duration::from_secs(2);
    let settings = Settings { topic_capacity: narrow(), lease, max_deliveries: 1000, ..Settings::default() };
    let watcher = open(&url, Settings::default(), None);
    let kills = async {
        let (from, to) = topics();
        for goal in [100, 300, 500, 700] {
            // In the middle of the traffic: once so many have arrived.
            while watcher.stats(&from.run).await.expect("stats").of(&to.name).put < goal {
                tokio::task::yield_now().await;
            }
            server.kill().expect("it runs");
            server.restart().expect("it starts again");
        }
    };
    in_time(traffic(&url, &settings, kills)).await;
}

#[tokio::test]
async fn what_keeps_a_client_out_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut server) = started(folder.path(), &["--requirepass", "s3cret"]) else { return };
    let port = server.port();
    let wrong = config(&format!("redis://:wr0ng@127.0.0.1:{port}"));
    let error = refusal(&wrong).await.to_string();
    assert!(error.contains(&format!("redis at redis://127.0.0.1:{port} cannot be used")), "{error}");
    assert!(!error.contains("wr0ng") && !error.contains("s3cret"), "{error}");
    let secret = folder.path().join("password");
    fs::write(&secret, "s3cret\n").expect("written");
    let right = RedisConfig { password_file: Some(secret), ..config(&server.url()) };
    let queue = open_redis(&right, Settings::default(), None).await.expect("the password is right");
    let (from, _) = topics();
    queue.put(&from, vec![item(1)]).await.expect("a put");
    server.kill().expect("it runs");
    let error = refusal(&right).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("start it or mend the address"), "{error}");
}

#[tokio::test]
async fn a_server_that_would_lose_records_is_refused() {
    let cases: [(&[&str], &str); 4] = [
        (&["--appendonly", "no"], "set appendonly yes"),
        (&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], "set maxmemory-policy noeviction"),
        (&["--replicaof", "127.0.0.1 1"], "name the server that it copies"),
        (&["--cluster-enabled", "yes"], "use a server of its own"),
    ];
    for (options, reason) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(server) = started(folder.path(), options) else { return };
        let error = refusal(&config(&server.url())).await.to_string();
        assert!(error.contains(reason), "{error}");
        let told = RedisConfig { allow_unsafe: true, ..config(&server.url()) };
        open_redis(&told, Settings::default(), None).await.expect("told otherwise");
    }
}

#[tokio::test]
async fn a_server_with_tls_is_trusted_by_its_authority_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (authority_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let mut authority = CertificateParams::new(Vec::new()).expect("valid");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).expect("signed");
    let issuer = Issuer::new(authority, authority_key);
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).expect("valid").signed_by(&key, &issuer).expect("signed");
    for (name, text) in [("ca.pem", ca.pem()), ("server.pem", server.pem()), ("key.pem", key.serialize_pem())] {
        fs::write(own(name), text).expect("written");
    }
    let (ca, certificate, key) = (own("ca.pem"), own("server.pem"), own("key.pem"));
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let options = [&["--tls-port", "--tls-auth-clients", "no"], files.as_slice()].concat();
    let Some(server) = started(folder.path(), &options) else { return };
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let trusted = RedisConfig { ca: Some(ca.into()), ..config(&url) };
    let queue = open_redis(&trusted, Settings::default(), None).await.expect("the authority is known");
    let (from, _) = topics();
    assert_eq!(queue.put(&from, vec![item(1)]).await.expect("a put").added, 1);
    let error = refusal(&config(&url)).await.to_string();
    assert!(error.contains("certificate") || error.contains("UnknownIssuer"), "{error}");
}
