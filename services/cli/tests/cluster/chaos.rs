//! Processes of a cluster get SIGKILL in a drawn order while a run of the stories example goes on.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use joust_core::rng::{Stream, uniform};
use joust_proto::coordinator::v1::{self as wire, coordinator_service_client::CoordinatorServiceClient};
use joust_rpc::Caller;

use crate::{
    books,
    harness::{Cluster, Size, accounts, run_now, signal, wait_for, wait_until_done},
};

const RUN: &str = "chaos";
const PROMPTS: u64 = 8;
/// The next kill comes at the latest after this time.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bound of the time to recover, p99.
const RECOVERY: Duration = Duration::from_secs(10);
/// Optimizer steps that show that the run moves again.
const MOVED: u64 = 2;
/// Steps that a kill may take, so that the run lasts as long as the kills.
const STEPS_A_KILL: u64 = 14;

const ROLES: [&str; 6] = ["rollout", "judge", "learner", "rank", "coordinator", "redis"];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Draws which roles are killed, each so many times, Redis five times at most.
fn order(seed: u64, times: u64) -> Vec<&'static str> {
    let each = |role: &'static str| {
        let times = if role == "redis" { times.min(5) } else { times };
        (0..times).map(move |_| role)
    };
    let mut order: Vec<&str> = ROLES.into_iter().flat_map(each).collect();
    for index in (1..order.len()).rev() {
        let u = uniform(seed, Stream::Judge, index as u64, (0, 0));
        order.swap(index, (u * (index + 1) as f64) as usize);
    }
    order
}

/// Returns a rank of the learner's process, `None` while none is there.
fn rank_of(learner: u32, rank: usize) -> Option<u32> {
    let rank = format!("--rank\0{rank}\0");
    fs::read_dir("/proc").expect("Linux").flatten().find_map(|entry| {
        let (line, stat) =
            (fs::read(entry.path().join("cmdline")).ok()?, fs::read_to_string(entry.path().join("stat")).ok()?);
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let is_it = parent == learner && String::from_utf8_lossy(&line).contains(&rank);
        is_it.then(|| entry.file_name().to_string_lossy().parse().ok())?
    })
}

/// Steps that stand in the run's ledger.
fn steps_told(cluster: &Cluster) -> u64 {
    let text = fs::read_to_string(cluster.run_folder(RUN).join("ledger.jsonl")).unwrap_or_default();
    text.lines().count() as u64
}

/// Where each member is reached; a process that was started again is reached elsewhere.
async fn addresses(client: &mut CoordinatorServiceClient<Caller>) -> Option<BTreeMap<String, String>> {
    let answer = client.list_workers(wire::ListWorkersRequest::default()).await.ok()?;
    Some(answer.into_inner().workers.into_iter().map(|member| (member.worker, member.address)).collect())
}

/// Kills a part of this role; returns how long it took until it was a member again and the run had moved on.
async fn kill(cluster: &Cluster, role: &str, u: f64) -> Duration {
    let mut client = cluster.client();
    let before =
        wait_for("an answer", PATIENCE, async || addresses(&mut client).await.filter(|found| found.len() == 5)).await;
    let part = match role {
        "rollout" | "judge" => format!("{role}-{}", (u * 2.0) as u32),
        "learner" | "rank" => "learner-0".into(),
        other => other.into(),
    };
    let process = cluster.processes()[&part];
    let victim = match role {
        "rank" => wait_for("a rank", PATIENCE, async || rank_of(process, (u * 2.0) as usize)).await,
        _ => process,
    };
    signal("KILL", victim);
    let began = Instant::now();
    // What the learner had done by then: the coordinator may hear of it later.
    let done = steps_told(cluster);
    let what = format!("the recovery of {part} at step {done}");
    let moved = wait_for(&what, PATIENCE, async || {
        let run = run_now(&mut client, RUN).await?;
        assert!(run.steps_done < run.steps, "the run ended before the kills did: more steps a kill are wanted");
        let there = addresses(&mut client).await?;
        let again = match role {
            "rollout" | "judge" | "learner" => there.get(&part).is_some_and(|address| *address != before[&part]),
            "rank" => true, // no step is done without it
            _ => cluster.processes()[&part] != process,
        };
        (again && there.len() == before.len() && run.steps_done >= done + MOVED).then_some(())
    });
    moved.await;
    began.elapsed()
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_processes_lose_nothing_and_train_nothing_twice() {
    let (times, seed) = (setting("JOUST_CHAOS", 1), setting("JOUST_CHAOS_SEED", 1));
    let folder = tempfile::tempdir().expect("a folder");
    let size = Size { rollouts: 2, judges: 2, learners: 1 };
    let Some(cluster) = Cluster::start(&folder.path().join("cluster"), repository(), size) else { return };
    let order = order(seed, times);
    let steps = STEPS_A_KILL * (order.len() as u64 + 1);
    let file = repository().join("examples/stories/run.toml").display().to_string();
    let mut submit = vec!["run", "submit", &file, "--name", RUN];
    let settings = [
        format!("learner.steps={steps}"),
        format!("learner.prompts_per_step={PROMPTS}"),
        "learner.micro_batch=4".into(),
        "learner.ranks=2".into(),
        format!("learner.rank_restarts={}", times * 2),
        "learner.checkpoint_every=10".into(),
        "eval.every=100".into(),
        "data.epochs=100".into(),
        "sampling.max_new_tokens=40".into(),
    ];
    submit.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    cluster.joust(&submit);
    let mut client = cluster.client();
    let first = wait_for("the first steps", PATIENCE * 2, async || {
        run_now(&mut client, RUN).await.filter(|run| run.steps_done >= MOVED)
    });
    first.await;
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for (index, role) in order.iter().enumerate() {
        let took = kill(&cluster, role, uniform(seed, Stream::Judge, index as u64, (1, 0))).await;
        times.entry(role).or_default().push(took);
    }
    wait_until_done(&cluster, RUN, Duration::from_secs(600)).await;
    books::balance(&accounts(&cluster, RUN).await, steps * PROMPTS);
    books::told(&cluster.joust(&["run", "watch", RUN, "--json"]), steps);
    let books = books::read(&cluster.run_folder(RUN), steps, PROMPTS);
    let p99 = print(times);
    println!(
        "kills={} steps={steps} lost={} twice={} staleness_max={} staleness_bound=1 recovery_p99_s={:.1} seed={seed}",
        order.len(),
        books.lost,
        books.twice,
        books.staleness,
        p99.as_secs_f64()
    );
    assert!(books.staleness <= 1, "{books:?}");
    assert_eq!(books::Books { staleness: 0, ..books }, books::Books::default());
    assert!(p99 < RECOVERY, "{p99:?}");
}

/// Prints the table; returns the p99 of all.
fn print(times: BTreeMap<&str, Vec<Duration>>) -> Duration {
    let at = |sorted: &[Duration], share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    println!("{:<12} {:>5} {:>16} {:>16}", "killed", "times", "recovery p50 s", "recovery max s");
    for (role, times) in &times {
        let mut sorted = times.clone();
        sorted.sort();
        let (p50, max) = (at(&sorted, 0.5).as_secs_f64(), at(&sorted, 1.0).as_secs_f64());
        println!("{role:<12} {:>5} {p50:>16.1} {max:>16.1}", sorted.len());
    }
    let mut all: Vec<Duration> = times.into_values().flatten().collect();
    all.sort();
    at(&all, 0.99)
}
