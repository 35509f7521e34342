//! What becomes of calls whose answer is lost, of large batches, and of clients that wait for each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use joust_core::RunId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

use super::{
    in_time,
    redis::{info, item, number_of, open, set, shared, started},
};
use crate::{Consumer, Done, Error, Fence, Item, ManualClock, Queue, Settings, StepManifest, Topic};

fn run() -> RunId {
    RunId::new("faults").expect("a valid name")
}

/// A proxy to a server that, when told to, passes what it hears but cuts the connection instead of the answer, or lets nothing through.
struct Cutter {
    port: u16,
    cut_next: AtomicBool,
    /// Connections up to this number are partitioned: they stay, and nothing passes.
    silent: AtomicU64,
    /// Whether all connections of now are partitioned as soon as the next answer is through.
    silence_next: AtomicBool,
    connections: AtomicU64,
}

impl Cutter {
    async fn start(server: u16) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let cutter = Arc::new(Self {
            port,
            cut_next: AtomicBool::new(false),
            silent: AtomicU64::new(0),
            silence_next: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        });
        let proxy = cutter.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = proxy.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(proxy.clone().ask(number, from_client, to_server));
                tokio::spawn(proxy.clone().answer(number, from_server, to_client));
            }
        });
        cutter
    }

    fn is_silent(&self, number: u64) -> bool {
        number <= self.silent.load(Ordering::SeqCst)
    }

    async fn ask(self: Arc<Self>, number: u64, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            if !self.is_silent(number) && to.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    }

    async fn answer(self: Arc<Self>, number: u64, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            if self.is_silent(number) {
                continue;
            }
            // What is told to all clients is no answer.
            let is_answer = !bytes[..length].starts_with(b"*4\r\n$8\r\npmessage");
            if is_answer && self.cut_next.swap(false, Ordering::SeqCst) {
                return;
            }
            if is_answer && self.silence_next.swap(false, Ordering::SeqCst) {
                self.silent.store(number, Ordering::SeqCst);
            }
            if to.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Opens a queue through the proxy, with a connection that is there.
    async fn queue(&self, database: &str, settings: Settings) -> Arc<dyn Queue> {
        let number = database.rsplit('/').next().expect("a number");
        let queue = open(&format!("redis://127.0.0.1:{}/{number}", self.port), settings, None);
        queue.stats(&run()).await.expect("the server answers");
        queue
    }

    /// Makes a call without its first answer.
    async fn cut<T>(&self, call: impl Future<Output = T>) -> T {
        self.cut_next.store(true, Ordering::SeqCst);
        let answer = call.await;
        assert!(!self.cut_next.load(Ordering::SeqCst), "an answer was cut off");
        answer
    }
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_done_once() {
    let Some(server) = shared() else { return };
    let cutter = Cutter::start(server.port()).await;
    let queue = cutter.queue(&server.database(), Settings::default()).await;
    let (topic, to, who) = (Topic::pairs(&run()), Topic::rollouts(&run()), Consumer::new("a"));
    let report = cutter.cut(queue.put(&topic, (0..6).map(item).collect())).await.expect("a put");
    assert_eq!((report.added, report.duplicates), (6, 0));
    let taken = cutter.cut(queue.take(&topic, &who, 6, Duration::ZERO)).await.expect("a take");
    assert_eq!((taken.len(), taken[5].deliveries), (6, 1), "the repeat hands out the same leases");
    let mut leases: Vec<_> = taken.into_iter().map(|leased| leased.lease).collect();
    let done = leases.drain(..2).map(|lease| (lease, Done::Moved)).collect();
    cutter.cut(queue.commit(done, vec![(to.clone(), item(9))])).await.expect("a commit");
    let back: Vec<_> = leases.drain(..2).collect();
    cutter.cut(queue.release(&back)).await.expect("a release");
    let fence = queue.fence(&topic).await.expect("a fence");
    assert_eq!(fence, Fence(1));
    let manifest = StepManifest { step: 0, body: vec![1] };
    cutter.cut(queue.assign(&topic, leases, manifest, fence)).await.expect("an assignment");
    cutter.cut(queue.retire(&topic, 0, 0, fence)).await.expect("a retirement");
    let stats = queue.stats(&run()).await.expect("stats");
    stats.balance().expect("the accounts add up");
    let (from, to) = (stats.of(&topic.name), stats.of(&to.name));
    assert_eq!((from.put, from.duplicates, from.finished, from.waiting, from.leased), (6, 0, 4, 2, 0));
    assert_eq!((to.put, to.duplicates), (1, 0));
}

#[tokio::test]
async fn a_partition_is_left_behind_with_its_connection() {
    let Some(server) = shared() else { return };
    let cutter = Cutter::start(server.port()).await;
    let queue = cutter.queue(&server.database(), Settings::default()).await;
    let topic = Topic::prompts(&run());
    let before = cutter.connections.load(Ordering::SeqCst);
    cutter.silent.store(before, Ordering::SeqCst);
    let report = in_time(queue.put(&topic, vec![item(1)])).await.expect("a put over another connection");
    assert_eq!((report.added, cutter.connections.load(Ordering::SeqCst)), (1, before + 1));
    let taken = queue.take(&topic, &Consumer::new("a"), 9, Duration::ZERO).await.expect("a take");
    assert_eq!((taken.len(), cutter.connections.load(Ordering::SeqCst)), (1, before + 1));
}

/// Waits for a condition.
async fn until(is: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let looked = async {
        while !is() {
            looks.tick().await;
        }
    };
    in_time(looked).await;
}

#[tokio::test]
async fn what_another_client_finished_before_it_was_read_is_not_handed_out() {
    let Some(server) = shared() else { return };
    let (cutter, url) = (Cutter::start(server.port()).await, server.database());
    let settings = Settings { lease: Duration::from_millis(300), ..Settings::default() };
    let (one, two) = (cutter.queue(&url, settings).await, open(&url, Settings::default(), None));
    let topic = Topic::prompts(&run());
    two.put(&topic, vec![item(1), item(2)]).await.expect("a put");
    cutter.silence_next.store(true, Ordering::SeqCst);
    let slow = {
        let (one, topic) = (one.clone(), topic.clone());
        tokio::spawn(async move { one.take(&topic, &Consumer::new("one"), 2, Duration::ZERO).await })
    };
    until(|| !cutter.silence_next.load(Ordering::SeqCst)).await;
    let taken = two.take(&topic, &Consumer::new("two"), 2, Duration::from_secs(30)).await.expect("a take");
    assert_eq!((taken.len(), taken[0].deliveries), (2, 2), "leased by a client that was cut off before it could read");
    two.commit(vec![(taken[0].lease.clone(), Done::Moved)], Vec::new()).await.expect("a commit");
    let late = in_time(slow).await.expect("the task").expect("a take");
    assert_eq!(late.iter().map(|leased| number_of(&leased.item)).collect::<Vec<_>>(), [2]);
    let error = one.commit(vec![(late[0].lease.clone(), Done::Moved)], Vec::new()).await;
    assert!(matches!(error, Err(Error::LeaseLost { .. })), "{error:?}");
    two.commit(vec![(taken[1].lease.clone(), Done::Moved)], Vec::new()).await.expect("a commit");
}

#[tokio::test]
async fn leases_of_one_take_end_one_by_one() {
    const MANY: u64 = 200;
    let Some(server) = shared() else { return };
    let clock = Arc::new(ManualClock::default());
    let settings = Settings { lease: Duration::from_secs(10), ..Settings::default() };
    let queue = open(&server.database(), settings, Some(clock.clone()));
    let (topic, who) = (Topic::prompts(&run()), Consumer::new("a|b c"));
    queue.put(&topic, (0..MANY).map(item).collect()).await.expect("a put");
    let taken = queue.take(&topic, &who, MANY as usize, Duration::ZERO).await.expect("a take");
    assert!(taken.iter().map(|leased| number_of(&leased.item)).eq(0..MANY));
    let leases: Vec<_> = taken.into_iter().map(|leased| leased.lease).collect();
    for lease in leases.iter().step_by(4) {
        queue.commit(vec![(lease.clone(), Done::Moved)], Vec::new()).await.expect("a commit");
    }
    clock.advance(Duration::from_secs(6));
    let renewed: Vec<_> = leases.iter().skip(1).step_by(4).cloned().collect();
    queue.renew(&renewed).await.expect("a renewal of some");
    let stats = queue.stats(&run()).await.expect("stats").of(&topic.name);
    assert_eq!((stats.finished, stats.leased, stats.holders[who.as_str()]), (50, 150, 150));
    clock.advance(Duration::from_secs(6));
    let again = queue.take(&topic, &who, MANY as usize, Duration::ZERO).await.expect("a take");
    let numbers: Vec<u64> = again.iter().map(|leased| number_of(&leased.item)).collect();
    assert_eq!(numbers, (0..MANY).filter(|number| number % 4 >= 2).collect::<Vec<_>>(), "those not renewed ran out");
    queue.renew(&renewed).await.expect("the others are still held");
    clock.advance(Duration::from_secs(9));
    let done = renewed.into_iter().chain(again.into_iter().map(|leased| leased.lease));
    queue.commit(done.map(|lease| (lease, Done::Moved)).collect(), Vec::new()).await.expect("a commit of all");
    let stats = queue.stats(&run()).await.expect("stats");
    stats.balance().expect("the accounts add up");
    assert_eq!((stats.of(&topic.name).finished, stats.of(&topic.name).expired), (MANY, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sleeps_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(server) = started(folder.path(), &[]) else { return };
    let cutter = Cutter::start(server.port()).await;
    let queue = cutter.queue("redis://server/0", Settings::default()).await;
    let topic = Topic::prompts(&run());
    let id = info(&server.url(), "process_id");
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &id]).status().expect("kill runs");
        assert!(sent.success());
    };
    signal("-STOP");
    let before = cutter.connections.load(Ordering::SeqCst);
    let put = {
        let (queue, topic) = (queue.clone(), topic.clone());
        tokio::spawn(async move { queue.put(&topic, vec![item(1)]).await })
    };
    // The put came on one connection, and was given up and sent again on another.
    until(|| cutter.connections.load(Ordering::SeqCst) > before).await;
    assert!(!put.is_finished());
    signal("-CONT");
    assert_eq!(put.await.expect("the task").expect("a put").added, 1, "done once, and reported as such");
    assert_eq!(queue.stats(&run()).await.expect("stats").of(&topic.name).duplicates, 0);
}

#[tokio::test]
async fn a_full_server_says_so_and_lets_work_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = ["--maxmemory", "6mb", "--maxmemory-policy", "noeviction"];
    let Some(server) = started(folder.path(), &options) else { return };
    let queue = open(&server.url(), Settings::default(), None);
    let (topic, who) = (Topic::prompts(&run()), Consumer::new("a"));
    let large = |number| Item { body: vec![7; 64 << 10], ..item(number) };
    let mut acknowledged = 0;
    let error = loop {
        match queue.put(&topic, vec![large(acknowledged)]).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 200, "the server never filled");
    };
    assert!(matches!(error, Error::ServerFull { .. }), "{error}");
    let stats = queue.stats(&run()).await.expect("stats");
    stats.balance().expect("the accounts add up");
    assert_eq!(stats.of(&topic.name).waiting, acknowledged, "what was acknowledged is there, and nothing else");
    // From now on it is full whatever is deleted.
    set(&server.url(), "maxmemory", "1mb");
    let mut leases: Vec<_> = queue
        .take(&topic, &who, 99, Duration::ZERO)
        .await
        .expect("a take on a full server")
        .into_iter()
        .map(|leased| leased.lease)
        .collect();
    queue.renew(&leases).await.expect("a renewal on a full server");
    let first = leases.pop().expect("a lease");
    let next = vec![(Topic::rollouts(&run()), large(1000)), (Topic::rollouts(&run()), large(1001))];
    let error = queue.commit(vec![(first.clone(), Done::Moved)], next).await.expect_err("no room for more");
    assert!(matches!(error, Error::ServerFull { .. }), "{error}");
    queue.renew(std::slice::from_ref(&first)).await.expect("nothing of the commit was done");
    queue.release(&[first]).await.expect("a release on a full server");
    let done = leases.into_iter().map(|lease| (lease, Done::Dropped("too much".into()))).collect();
    queue.commit(done, Vec::new()).await.expect("a commit on a full server");
    set(&server.url(), "maxmemory", "6mb");
    assert_eq!(queue.put(&topic, vec![item(999)]).await.expect("room").added, 1);
    let stats = queue.stats(&run()).await.expect("stats");
    stats.balance().expect("the accounts add up");
}

#[tokio::test]
async fn large_batches_pass() {
    const MANY: u64 = 20_000;
    let Some(server) = shared() else { return };
    let queue = open(&server.database(), Settings::default(), None);
    let (from, to) = (Topic::prompts(&run()), Topic::pairs(&run()));
    let report = queue.put(&from, (0..MANY).map(item).collect()).await.expect("a put");
    assert_eq!(report.added, MANY);
    let taken = queue.take(&from, &Consumer::new("many"), MANY as usize, Duration::ZERO).await.expect("a take");
    assert!(taken.iter().map(|leased| number_of(&leased.item)).eq(0..MANY));
    let leases: Vec<_> = taken.iter().map(|leased| leased.lease.clone()).collect();
    queue.renew(&leases).await.expect("a renewal");
    let done = leases.into_iter().map(|lease| (lease, Done::Moved)).collect();
    let next = taken.into_iter().map(|leased| (to.clone(), leased.item)).collect();
    queue.commit(done, next).await.expect("a commit");
    let stats = queue.stats(&run()).await.expect("stats");
    stats.balance().expect("the accounts add up");
    assert_eq!((stats.of(&from.name).finished, stats.of(&to.name).waiting), (MANY, MANY));
}

#[tokio::test]
async fn the_server_decides_when_a_lease_ends() {
    let Some(server) = shared() else { return };
    let (settings, url) = (Settings { lease: Duration::from_millis(300), ..Settings::default() }, server.database());
    let (one, two) = (open(&url, settings.clone(), None), open(&url, settings, None));
    let topic = Topic::prompts(&run());
    one.put(&topic, vec![item(1)]).await.expect("a put");
    let held = one.take(&topic, &Consumer::new("one"), 1, Duration::ZERO).await.expect("a take");
    let taken = two.take(&topic, &Consumer::new("two"), 1, Duration::from_secs(30)).await.expect("a take");
    assert_eq!((&taken[0].item, taken[0].deliveries), (&item(1), 2));
    let late = one.commit(vec![(held[0].lease.clone(), Done::Moved)], Vec::new()).await;
    assert!(matches!(late, Err(Error::LeaseLost { .. })), "{late:?}");
}

#[tokio::test]
async fn another_client_wakes_a_taker_and_a_putter() {
    let Some(server) = shared() else { return };
    let (settings, url) = (Settings { capacity: 1, ..Settings::default() }, server.database());
    let (one, two) = (open(&url, settings.clone(), None), open(&url, settings, None));
    let (topic, who, long) = (Topic::prompts(&run()), Consumer::new("w"), Duration::from_secs(3600));
    let take = one.take(&topic, &who, 1, long);
    let (taken, put) = tokio::join!(take, two.put(&topic, vec![item(1)]));
    assert_eq!((taken.expect("a take").len(), put.expect("a put").added), (1, 1));
    two.put(&topic, vec![item(2)]).await.expect("a put");
    let (put, taken) = tokio::join!(one.put_when_room(&topic, vec![item(3)], long), two.take(&topic, &who, 1, long));
    assert_eq!((put.expect("room was made").added, taken.expect("a take").len()), (1, 1));
}
