//! Several ranks: one that is lost is started again, and the run ends in the weights of the run that lost none; a run goes on with another
//! number of ranks; ranks end with their supervisor.
//!
//! `JOUST_RANK_KILLS` sets the number of kills (default 7; `make test-rank-kills` prints the line for 20).

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use joust_testkit::tiny_folder;
use serde_json::Value;

/// Which rank is killed where, and at which pass; five in a run.
const KILLS: [&str; 20] = [
    "0:rank_in_checkpoint:1",
    "1:rank_in_all_reduce:2",
    "2:rank_before_step:2",
    "3:rank_after_step:1",
    "0:rank_in_all_reduce:3",
    "0:rank_in_checkpoint:2",
    "3:rank_in_all_reduce:4",
    "1:rank_before_step:1",
    "2:rank_after_step:3",
    "0:rank_before_step:3",
    "0:rank_in_checkpoint:1",
    "2:rank_in_all_reduce:1",
    "0:rank_after_step:2",
    "1:rank_after_step:1",
    "3:rank_before_step:2",
    "0:rank_in_checkpoint:2",
    "1:rank_in_all_reduce:6",
    "2:rank_before_step:4",
    "3:rank_after_step:2",
    "0:rank_in_all_reduce:2",
];
const LIMIT: Duration = Duration::from_secs(60);

const RUN: &str = r#"
schema = 1
name = "ranks"
preset = "oaif-dpo"
deterministic = true
[policy]
model = "model"
dtype = "bfloat16"
[data]
prompts = "prompts.jsonl"
epochs = 10
eval_fraction = 0.1
[sampling]
max_new_tokens = 16
[feedback]
ask = "score"
[[judge]]
name = "letters"
kind = "rule"
rules = [{ pattern = "[aeiou]", score = 1.0, max_count = 100 }]
[pairing]
replay = { ratio = 0.25, capacity = 12, order = "uniform" }
[learner]
prompts_per_step = 8
micro_batch = 2
learning_rate = 1e-3
steps = 12
checkpoint_every = 3
ranks = 4
rank_restarts = 9
[eval]
every = 5
prompts = 4
"#;

fn case() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_owned();
    tiny_folder(&root.join("model"), 5);
    let prompts: String = (0..60).map(|i| format!("{{\"prompt\": \"the cat number {i}\"}}\n")).collect();
    fs::write(root.join("prompts.jsonl"), prompts).expect("written");
    fs::write(root.join("run.toml"), RUN).expect("written");
    (folder, root)
}

fn joust(root: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joust"));
    command
        .arg("run")
        .arg(root.join("run.toml"))
        .args(["--set", &format!("output.dir={:?}", out.display().to_string())]);
    command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("policy/model.safetensors")).expect("a policy")
}

/// Ids that each step applied for the first time, checked to be entered once a step and in order.
fn ledger(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out.join("ledger.jsonl")).expect("a ledger");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, (0..12).collect::<Vec<_>>(), "each step once, in order");
    let ids = |line: &Value, key: &str| -> Vec<String> {
        line[key].as_array().expect("a list").iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
    };
    let fresh = |line: &Value| {
        let replayed: HashSet<String> = ids(line, "replayed").into_iter().collect();
        ids(line, "examples").into_iter().filter(move |id| !replayed.contains(id)).collect::<Vec<_>>()
    };
    lines.iter().flat_map(fresh).collect()
}

#[test]
fn lost_ranks_are_started_again_and_change_nothing() {
    let wanted: usize = std::env::var("JOUST_RANK_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let (_folder, root) = case();
    let whole = root.join("whole");
    let output = joust(&root, &whole, &[]).output().expect("joust starts");
    assert!(output.status.success(), "{}", told(&output));
    let (expected, ids) = (weights(&whole), ledger(&whole));
    let (mut kills, mut equal, mut lost, mut twice) = (0, true, 0, 0);
    let kills_of = |what: &str| KILLS[..wanted].iter().filter(|kill| kill.contains(what)).count();
    for (round, points) in KILLS[..wanted].chunks(5).enumerate() {
        let out = root.join(format!("run-{round}"));
        let output =
            joust(&root, &out, &[]).env("JOUST_RANK_FAILPOINTS", points.join(",")).output().expect("joust starts");
        assert!(output.status.success(), "{points:?}\n{}", told(&output));
        let hits = told(&output).matches("a rank was lost").count();
        assert_eq!(hits, points.len(), "{points:?}\n{}", told(&output));
        kills += hits;
        equal &= weights(&out) == expected;
        let applied = ledger(&out);
        let distinct: HashSet<&String> = applied.iter().collect();
        twice += applied.len() - distinct.len();
        lost += ids.iter().filter(|id| !distinct.contains(id)).count();
    }
    println!(
        "kills={kills} rank0={} in_checkpoint={} in_allreduce={} weights_equal={equal} lost={lost} twice={twice}",
        KILLS[..wanted].iter().filter(|kill| kill.starts_with("0:")).count(),
        kills_of("checkpoint"),
        kills_of("all_reduce"),
    );
    assert!(equal && lost == 0 && twice == 0);
}

#[test]
fn a_run_of_four_ranks_goes_on_with_three_two_and_one() {
    let (_folder, root) = case();
    let (whole, out) = (root.join("whole"), root.join("run"));
    assert!(joust(&root, &whole, &[]).output().expect("joust starts").status.success());
    let killed = joust(&root, &out, &[]).env("JOUST_FAILPOINT", "learner_after_step:4").output().expect("joust starts");
    assert!(!killed.status.success());
    for (ranks, point) in [("3", "learner_after_step:4"), ("2", "learner_after_publish:3"), ("1", "none:1")] {
        let more = ["--resume", "--set", &format!("learner.ranks={ranks}")];
        let output = joust(&root, &out, &more).env("JOUST_FAILPOINT", point).output().expect("joust starts");
        assert_eq!(output.status.success(), ranks == "1", "{ranks} ranks\n{}", told(&output));
    }
    // Rounding may turn a sampled token, so other examples may follow; each step is there once.
    let applied = ledger(&out);
    assert_eq!(applied.iter().collect::<HashSet<_>>().len(), applied.len());
}

#[test]
fn too_many_losses_end_the_run_and_more_ranks_than_prompts_are_refused() {
    let (_folder, root) = case();
    let points = "1:rank_before_step:1,1:rank_before_step:1";
    let more = ["--set", "learner.rank_restarts=1"];
    let output =
        joust(&root, &root.join("run"), &more).env("JOUST_RANK_FAILPOINTS", points).output().expect("joust starts");
    assert_eq!(output.status.code(), Some(2));
    let last = told(&output).lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("error: rank ") && last.ends_with("go on with --resume"), "{last}");
    let refused = joust(&root, &root.join("other"), &["--set", "learner.ranks=9"]).output().expect("joust starts");
    assert!(told(&refused).contains("a step has 8 prompts"), "{}", told(&refused));
}

#[test]
fn a_rank_that_cannot_be_started_again_is_done_without() {
    let (_folder, root) = case();
    // Rank 3 dies before its first step, each time that there is one.
    let points = ["3:rank_before_step:1"; 6].join(",");
    let more = ["--set", "learner.min_ranks=3"];
    let output =
        joust(&root, &root.join("run"), &more).env("JOUST_RANK_FAILPOINTS", points).output().expect("joust starts");
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(told(&output).matches("going on with one fewer").count(), 1, "{}", told(&output));
    ledger(&root.join("run"));
}

#[test]
fn a_rank_that_is_stopped_is_replaced_and_changes_nothing_when_it_wakes() {
    let (_folder, root) = case();
    let whole = root.join("whole");
    assert!(joust(&root, &whole, &[]).output().expect("joust starts").status.success());
    let out = root.join("run");
    let child = joust(&root, &out, &["--set", "learner.rank_timeout_s=8"]).spawn().expect("joust starts");
    let deadline = Instant::now() + LIMIT;
    let steps = || fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while steps() < 2 {
        assert!(Instant::now() < deadline, "no steps within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(2)); // polls a file of another process
    }
    let stopped = rank_of(&out, 2).expect("it trains");
    signal("-STOP", &stopped);
    // It is waited for, given up and replaced: another process is rank 2 then, and this one is gone.
    while rank_of(&out, 2).is_none_or(|now| now == stopped) {
        assert!(Instant::now() < deadline, "the stopped rank was not replaced");
        std::thread::sleep(Duration::from_millis(5)); // polls the system's list of processes
    }
    signal("-CONT", &stopped);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(told(&output).matches("a rank was lost").count(), 1, "{}", told(&output));
    assert!(weights(&out) == weights(&whole), "the same weights");
    assert_eq!(ledger(&out), ledger(&whole));
}

/// Returns the process that is a rank of the run in `out`.
fn rank_of(out: &Path, rank: usize) -> Option<String> {
    let path = out.join("run.toml").display().to_string();
    let rank = format!("--rank\0{rank}\0");
    fs::read_dir("/proc").expect("Linux").flatten().find_map(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        (arguments.contains(&path) && arguments.contains(&rank))
            .then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

/// Sends a signal to a process, which may be gone.
fn signal(which: &str, process: &str) {
    let _ = Command::new("kill").args([which, process]).stderr(Stdio::null()).status().expect("kill runs");
}

/// Returns how many processes have a path among their arguments.
fn processes_of(path: &Path) -> usize {
    let path = path.display().to_string();
    let own = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let all = fs::read_dir("/proc").expect("Linux").flatten().map(own);
    all.filter(|arguments| String::from_utf8_lossy(arguments).contains(&path)).count()
}

#[test]
fn ranks_end_with_their_supervisor() {
    let (_folder, root) = case();
    let out = root.join("run");
    let mut child = joust(&root, &out, &[]).spawn().expect("joust starts");
    let deadline = Instant::now() + LIMIT;
    let told = || fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while told() < 3 {
        assert!(Instant::now() < deadline, "no steps within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5)); // polls a file of another process
    }
    assert_eq!(processes_of(&out), 5, "four ranks and their supervisor");
    child.kill().expect("SIGKILL is delivered");
    child.wait().expect("it is gone");
    while processes_of(&out) > 0 {
        assert!(Instant::now() < deadline, "ranks outlive their supervisor");
        std::thread::sleep(Duration::from_millis(5)); // polls the system's list of processes
    }
}
