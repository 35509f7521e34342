//! How fast records pass through Redis beside bare pipelined Redis with the same persistence, and through a file beside bare redb: `cargo bench -p
//! joust-queue --bench redis`. 4 KB records in batches of 64 from 4 clients; rounds take turns, so that what else the machine does meets both. Figures are
//! medians of the rounds, slow ends those of all batches. The server does not rewrite its append-only file meanwhile; with `-- rewrite` it does, when it wants to.
//! `-- redis` and `-- file` measure one alone.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use joust_core::{RecordId, RunId};
use joust_queue::{
    Consumer, Done, Item, Queue, RedisConfig, Settings, Topic, open_embedded, open_redis, sandbox::RedisServer,
};
use redb::{Database, TableDefinition};
use redis::{Client, aio::MultiplexedConnection, streams::StreamReadOptions, streams::StreamReadReply};
use tokio::task::JoinSet;

const CLIENTS: u64 = 4;
const ROUNDS: u64 = 5;
/// Batches of each client in a round.
const BATCHES: u64 = 60;
const BATCH: u64 = 64;
const BODY_BYTES: usize = 4096;

/// Records a second, and the time of each batch in milliseconds.
struct Speed {
    per_s: f64,
    times_ms: Vec<f64>,
}

/// Runs the batches of all clients at once.
async fn measure<F>(client: impl Fn(u64, u64) -> F + Clone + Send + 'static) -> Speed
where
    F: Future<Output = ()> + Send + 'static,
{
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = client.clone();
        clients.spawn(async move {
            let mut times = Vec::new();
            for batch in 0..BATCHES {
                let began = Instant::now();
                client(number, batch).await;
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            times
        });
    }
    let times_ms: Vec<f64> = clients.join_all().await.into_iter().flatten().collect();
    Speed { per_s: (CLIENTS * BATCHES * BATCH) as f64 / began.elapsed().as_secs_f64(), times_ms }
}

fn item(kind: &str, (client, batch, index): (u64, u64, u64)) -> Item {
    let name = format!("{kind}/{client}/{batch}/{index}");
    Item { id: RecordId::derive(&[name.as_bytes()]), body: vec![7; BODY_BYTES], trace: None }
}

fn batch_of(kind: &'static str, client: u64, batch: u64) -> Vec<Item> {
    (0..BATCH).map(|index| item(kind, (client, batch, index))).collect()
}

fn topics() -> (Topic, Topic) {
    let run = RunId::new("speed").expect("a valid name");
    (Topic::prompts(&run), Topic::rollouts(&run))
}

async fn puts(queues: Vec<Arc<dyn Queue>>) -> Speed {
    measure(move |client, batch| {
        let queue = queues[client as usize].clone();
        async move {
            queue.put(&topics().0, batch_of("in", client, batch)).await.expect("a put");
        }
    })
    .await
}

async fn moves(queues: Vec<Arc<dyn Queue>>) -> Speed {
    measure(move |client, batch| {
        let queue = queues[client as usize].clone();
        async move {
            let ((from, to), who) = (topics(), Consumer::new(format!("client-{client}")));
            let taken = queue.take(&from, &who, BATCH as usize, Duration::from_secs(5)).await.expect("a take");
            let done = taken.into_iter().map(|leased| (leased.lease, Done::Moved)).collect();
            let next = batch_of("out", client, batch).into_iter().map(|item| (to.clone(), item)).collect();
            queue.commit(done, next).await.expect("a commit");
        }
    })
    .await
}

async fn bare_puts(connections: Vec<MultiplexedConnection>) -> Speed {
    measure(move |client, _| {
        let mut connection = connections[client as usize].clone();
        async move {
            let mut pipe = redis::pipe();
            for _ in 0..BATCH {
                pipe.xadd("bare", "*", &[("b", vec![7u8; BODY_BYTES])]).ignore();
            }
            pipe.query_async::<()>(&mut connection).await.expect("puts");
        }
    })
    .await
}

async fn bare_moves(connections: Vec<MultiplexedConnection>) -> Speed {
    measure(move |client, _| {
        let mut connection = connections[client as usize].clone();
        async move {
            let options = StreamReadOptions::default().group("g", format!("c{client}")).count(BATCH as usize);
            let taken: StreamReadReply = redis::cmd("XREADGROUP")
                .arg(&options)
                .arg("STREAMS")
                .arg("bare")
                .arg(">")
                .query_async(&mut connection)
                .await
                .expect("a read");
            let ids: Vec<&str> = taken.keys[0].ids.iter().map(|entry| entry.id.as_str()).collect();
            let mut pipe = redis::pipe();
            for _ in 0..BATCH {
                pipe.xadd("out", "*", &[("b", vec![7u8; BODY_BYTES])]).ignore();
            }
            pipe.xack("bare", "g", &ids).ignore().xdel("bare", &ids).ignore();
            pipe.query_async::<()>(&mut connection).await.expect("moves");
        }
    })
    .await
}

const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("bare");
const OUT: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("out");

/// One transaction a batch, as many syncs as the queue makes.
async fn bare_redb(database: Arc<Database>, moves: bool) -> Speed {
    measure(move |client, batch| {
        let database = database.clone();
        async move {
            let work = move || {
                let keys = (client * BATCHES + batch) * BATCH..(client * BATCHES + batch + 1) * BATCH;
                let body = vec![7u8; BODY_BYTES];
                if !moves {
                    let write = database.begin_write().expect("a transaction");
                    let mut table = write.open_table(TABLE).expect("a table");
                    keys.for_each(|key| drop(table.insert(key, body.as_slice()).expect("an insert")));
                    drop(table);
                    return write.commit().expect("a commit");
                }
                // What is taken is noted, then moved.
                database.begin_write().expect("a transaction").commit().expect("a commit");
                let write = database.begin_write().expect("a transaction");
                let (mut table, mut out) =
                    (write.open_table(TABLE).expect("a table"), write.open_table(OUT).expect("a table"));
                for key in keys {
                    drop(table.remove(key).expect("a removal"));
                    drop(out.insert(key, body.as_slice()).expect("an insert"));
                }
                drop((table, out));
                write.commit().expect("a commit");
            };
            tokio::task::spawn_blocking(work).await.expect("it ends");
        }
    })
    .await
}

/// What one way to keep records did beside a bare one: puts, then takes and commits.
#[derive(Default)]
struct Beside {
    ours: [Vec<Speed>; 2],
    bare: [Vec<Speed>; 2],
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn p99_ms(rounds: &[Speed]) -> f64 {
    let mut times: Vec<f64> = rounds.iter().flat_map(|round| round.times_ms.iter().copied()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

impl Beside {
    fn tell(&self, what: &str, name: &str) {
        for (at, does) in ["put", "take+commit"].into_iter().enumerate() {
            let (ours, bare) = (&self.ours[at], &self.bare[at]);
            let per_s = |rounds: &[Speed]| middle(rounds.iter().map(|round| round.per_s).collect());
            let share = middle(ours.iter().zip(bare).map(|(ours, bare)| ours.per_s / bare.per_s).collect());
            println!(
                "queue {what} {does} per_s={:.0} bare_{name}={:.0} share={share:.2} p99_ms={:.1} bare_p99_ms={:.1}",
                per_s(ours),
                per_s(bare),
                p99_ms(ours),
                p99_ms(bare)
            );
        }
    }
}

async fn over_redis(folder: &Path, settings: &Settings) {
    let rewrites = std::env::args().any(|arg| arg == "rewrite");
    let options: &[&str] = if rewrites { &[] } else { &["--auto-aof-rewrite-percentage", "0"] };
    let server = RedisServer::start(folder, options).expect("redis-server starts");
    let client = Client::open(server.url()).expect("a URL");
    let mut beside = Beside::default();
    for round in 0..ROUNDS {
        let (mut connections, mut queues) = (Vec::new(), Vec::new());
        for _ in 0..CLIENTS {
            connections.push(client.get_multiplexed_async_connection().await.expect("connected"));
            queues.push(open_redis(&RedisConfig::new(server.url()), settings.clone(), None).await.expect("opened"));
        }
        let mut connection = connections[0].clone();
        for ours in [round % 2 == 0, round % 2 == 1] {
            if ours {
                beside.ours[0].push(puts(queues.clone()).await);
                beside.ours[1].push(moves(queues.clone()).await);
            } else {
                beside.bare[0].push(bare_puts(connections.clone()).await);
                let group = redis::cmd("XGROUP").arg(&["CREATE", "bare", "g", "0"]).to_owned();
                group.query_async::<()>(&mut connection).await.expect("a group");
                beside.bare[1].push(bare_moves(connections.clone()).await);
            }
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.expect("empty");
        }
    }
    beside.tell("redis", "redis");
}

async fn over_files(folder: &Path, settings: &Settings) {
    let mut beside = Beside::default();
    for round in 0..ROUNDS {
        let path = |name: &str| folder.join(format!("{name}-{round}.redb"));
        for ours in [round % 2 == 0, round % 2 == 1] {
            if ours {
                let file = open_embedded(&path("queue"), settings.clone()).expect("a queue file");
                let queues: Vec<Arc<dyn Queue>> = (0..CLIENTS).map(|_| file.clone()).collect();
                beside.ours[0].push(puts(queues.clone()).await);
                beside.ours[1].push(moves(queues).await);
            } else {
                // As much memory as the queue gives it.
                let mut builder = Database::builder();
                builder.set_cache_size(64 << 20);
                let database = Arc::new(builder.create(path("bare")).expect("a file"));
                beside.bare[0].push(bare_redb(database.clone(), false).await);
                beside.bare[1].push(bare_redb(database, true).await);
            }
        }
    }
    beside.tell("file", "redb");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk");
    let settings = Settings { capacity: 1 << 30, ..Settings::default() };
    let only = |what: &str| std::env::args().any(|arg| arg == what);
    if !RedisServer::is_installed() {
        println!("queue redis: redis-server is not installed");
    } else if !only("file") {
        over_redis(folder.path(), &settings).await;
    }
    if !only("redis") {
        over_files(folder.path(), &settings).await;
    }
}
