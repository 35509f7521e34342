//! Kill and resume: a deterministic run that is killed again and again ends in the weights of the run that was not (R1, R2, R6).
//!
//! `JOUST_KILLS` sets the number of kills (default 50; `make test-kills` prints the line): half at random moments, half at named points
//! around every commit.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use joust_core::rng::{Stream, uniform};
use joust_queue::sandbox::RedisServer;
use joust_testkit::tiny_folder;
use serde_json::Value;

const POINTS: [&str; 13] = [
    "rollout_before_commit",
    "rollout_after_commit",
    "judge_before_commit",
    "judge_after_commit",
    "learner_before_assign",
    "learner_after_assign",
    "learner_after_step",
    "learner_after_publish",
    "checkpoint_before_write",
    "rank_in_checkpoint",
    "checkpoint_before_rename",
    "checkpoint_after_write",
    "checkpoint_after_retire",
];
const STEPS: u64 = 20;
/// File of a case that says which Redis its runs use.
const REDIS: &str = "redis";
/// No run takes as long; one that does hangs.
const LIMIT: Duration = Duration::from_secs(120);

const RUN: &str = r#"
schema = 1
name = "kills"
preset = "oaif-dpo"
deterministic = true
[policy]
model = "model"
dtype = "float32"
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
prompts_per_step = 4
micro_batch = 4
learning_rate = 1e-3
steps = 20
checkpoint_every = 3
[eval]
every = 7
prompts = 4
"#;

/// What a kill is made by.
enum Kill {
    After(Duration),
    At(String),
}

struct Case {
    root: PathBuf,
    kills: u64,
}

fn start(root: &Path, out: &Path, failpoint: Option<&str>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joust"));
    command
        .arg("run")
        .arg(root.join("run.toml"))
        .arg("--set")
        .arg(format!("output.dir={:?}", out.display().to_string()));
    if out.join("run.json").exists() {
        command.arg("--resume");
    }
    if let Some(point) = failpoint {
        command.env("JOUST_FAILPOINT", point);
    }
    if let Ok(url) = fs::read_to_string(root.join(REDIS)) {
        command.env("JOUST_REDIS", url);
    }
    command
        .stdout(Stdio::null())
        .stderr(fs::File::create(root.join("stderr")).expect("a file"))
        .spawn()
        .expect("joust starts")
}

/// Waits for the process; kills it when its time is over. Returns whether it ended well by itself.
fn wait(root: &Path, mut child: Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            let told = fs::read_to_string(root.join("stderr")).unwrap_or_default();
            assert!(status.success() || status.code().is_none(), "joust failed by itself: {status}\n{told}");
            return status.success();
        }
        if Instant::now() >= deadline {
            child.kill().expect("SIGKILL is delivered");
            child.wait().expect("the child is gone");
            return false;
        }
        std::thread::sleep(Duration::from_millis(1)); // polls a process, waits for no condition of ours
    }
}

impl Case {
    /// Draws the next kill: a random moment of a run of `whole`, or a random pass of the next point.
    fn draw(&mut self, whole: Duration) -> Kill {
        self.kills += 1;
        let u = uniform(1, Stream::Judge, self.kills, (0, 0));
        if self.kills.is_multiple_of(2) {
            let point = POINTS[(self.kills / 2) as usize % POINTS.len()];
            Kill::At(format!("{point}:{}", 1 + (u * 4.0) as u64))
        } else {
            Kill::After(whole.mul_f64(u))
        }
    }

    /// Runs once to the end, killed up to `limit` times in all; returns the kills that hit.
    fn run(&mut self, out: &Path, whole: Duration, limit: u64) -> u64 {
        let mut hits = 0;
        while hits < limit {
            let ended = match self.draw(whole) {
                Kill::After(moment) => wait(&self.root, start(&self.root, out, None), moment),
                Kill::At(point) => wait(&self.root, start(&self.root, out, Some(&point)), LIMIT),
            };
            if ended {
                return hits;
            }
            hits += 1;
        }
        assert!(wait(&self.root, start(&self.root, out, None), LIMIT), "the last resume must finish");
        hits
    }
}

/// Ids of a run's ledger: first applications in order, checked to be entered once a step.
fn ledger(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out.join("ledger.jsonl")).expect("a ledger");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, (0..STEPS).collect::<Vec<_>>(), "each step once, in order");
    let ids = |line: &Value, key: &str| {
        let list = line[key].as_array().expect("a list").clone();
        list.into_iter().map(|id| id.as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let fresh = |line: &Value| {
        let replayed: BTreeSet<String> = ids(line, "replayed").into_iter().collect();
        ids(line, "examples").into_iter().filter(move |id| !replayed.contains(id)).collect::<Vec<_>>()
    };
    lines.iter().flat_map(fresh).collect()
}

/// Writes model, prompts and run file into a fresh folder; the model computes in `dtype`.
fn case(dtype: &str) -> (tempfile::TempDir, Case) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_owned();
    tiny_folder(&root.join("model"), 5);
    let prompts: String = (0..40).map(|i| format!("{{\"prompt\": \"the cat number {i}\"}}\n")).collect();
    fs::write(root.join("prompts.jsonl"), prompts).expect("written");
    let run = RUN.replace("dtype = \"float32\"", &format!("dtype = {dtype:?}"));
    fs::write(root.join("run.toml"), run).expect("written");
    (folder, Case { root, kills: 0 })
}

/// Runs undisturbed; returns the weights.
fn undisturbed(root: &Path) -> Vec<u8> {
    let out = root.join("whole");
    assert!(wait(root, start(root, &out, None), LIMIT), "the undisturbed run finishes");
    fs::read(out.join("policy/model.safetensors")).expect("a policy")
}

/// Waits until the run has told of `steps` steps.
fn wait_for_steps(out: &Path, steps: usize) {
    let deadline = Instant::now() + LIMIT;
    let told = || fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while told() < steps {
        assert!(Instant::now() < deadline, "no {steps} steps within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(1)); // polls a file of another process
    }
}

#[test]
fn a_signal_finishes_the_step_and_resume_goes_on() {
    let (_folder, case) = case("bfloat16");
    let (root, out) = (case.root.as_path(), case.root.join("run"));
    let weights = undisturbed(root);
    for (signal, steps) in [("-INT", 2), ("-TERM", 6)] {
        let mut child = start(root, &out, None);
        wait_for_steps(&out, steps);
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let status = child.wait().expect("the child ends");
        let told = fs::read_to_string(root.join("stderr")).expect("stderr");
        assert_eq!(status.code(), Some(130), "{told}");
        assert!(told.contains("finishing the step"), "{told}");
        let last = told.lines().last().expect("a line");
        assert!(last.starts_with("stopped after step ") && last.ends_with("run.toml --resume"), "{told}");
    }
    assert!(wait(root, start(root, &out, None), LIMIT), "the resumed run finishes");
    assert!(fs::read(out.join("policy/model.safetensors")).expect("a policy") == weights);
    assert_eq!(ledger(&out), ledger(&root.join("whole")));
}

/// Kills a run of iterations of four steps in the middle of one, at its end and around the checkpoint there, and resumes it.
fn iterations_survive(run: &str) {
    let (_folder, case) = case("float32");
    let root = case.root.clone();
    let run = run
        .replace("replay = { ratio = 0.25, capacity = 12, order = \"uniform\" }", "")
        .replace("steps = 20\n", "steps = 20\niteration_steps = 4\n");
    assert!(run.contains("iteration_steps") && !run.contains("replay"));
    fs::write(root.join("run.toml"), run).expect("written");
    let weights = undisturbed(&root);
    let out = root.join("run");
    for point in
        ["learner_after_step:2", "learner_before_assign:3", "learner_after_publish:4", "checkpoint_before_write:2"]
    {
        assert!(!wait(&root, start(&root, &out, Some(point)), LIMIT), "killed at {point}");
    }
    assert!(wait(&root, start(&root, &out, None), LIMIT), "the last resume finishes");
    assert!(fs::read(out.join("policy/model.safetensors")).expect("a policy") == weights);
    assert_eq!(ledger(&out), ledger(&root.join("whole")));
}

#[test]
fn iterations_go_on_from_their_own_sampler_and_reference() {
    let run = RUN.replace("preset = \"oaif-dpo\"", "preset = \"sppo\"").replace("ask = \"score\"", "ask = \"rank\"");
    assert!(run.contains("sppo") && run.contains("rank"));
    iterations_survive(&run);
}

#[test]
fn iterations_go_on_from_their_own_past_and_average() {
    let own = "[reference]\nkind = \"ema\"\n[sampling]\nplayers = [\"policy\", \"past\"]\nema_decay = 0.5\n";
    let run = RUN.replace("[sampling]\n", own);
    assert!(run.contains("past"));
    iterations_survive(&run);
}

#[test]
fn layers_that_are_computed_again_give_the_same_weights() {
    let (_folder, case) = case("bfloat16");
    let weights = undisturbed(&case.root);
    let run = fs::read_to_string(case.root.join("run.toml")).expect("a run file");
    let again = run.replace("[learner]\n", "[learner]\nactivation_checkpointing = true\n");
    assert_ne!(run, again);
    fs::write(case.root.join("run.toml"), again).expect("written");
    fs::remove_dir_all(case.root.join("whole")).expect("removed");
    assert!(undisturbed(&case.root) == weights);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let (_folder, case) = case("bfloat16");
    let (root, out) = (case.root.as_path(), case.root.join("run"));
    let weights = undisturbed(root);
    assert!(!wait(root, start(root, &out, Some("checkpoint_after_retire:4")), LIMIT), "killed after the fourth");
    let newest = out.join("checkpoints/checkpoint-12/shard-0.safetensors");
    let bytes = fs::read(&newest).expect("the fourth checkpoint");
    fs::write(&newest, &bytes[..bytes.len() / 2]).expect("cut");
    assert!(wait(root, start(root, &out, None), LIMIT), "the one before is used");
    assert!(fs::read(out.join("policy/model.safetensors")).expect("a policy") == weights);
    assert_eq!(ledger(&out), ledger(&root.join("whole")));
}

#[test]
fn a_killed_run_ends_in_the_same_weights() {
    let wanted: u64 = std::env::var("JOUST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    let (_folder, mut case) = case("float32");
    let root = case.root.clone();
    let began = Instant::now();
    let weights = undisturbed(&root);
    let whole = began.elapsed();
    let expected = ledger(&root.join("whole"));
    assert!(expected.len() > 20, "the run trains on something");

    let (mut kills, mut round) = (0, 0);
    let (mut equal, mut lost, mut twice) = (true, 0, 0);
    while kills < wanted {
        round += 1;
        let out = root.join(format!("run-{round}"));
        kills += case.run(&out, whole, 4.min(wanted - kills));
        equal &= fs::read(out.join("policy/model.safetensors")).expect("a policy") == weights;
        let applied = ledger(&out);
        let distinct: HashSet<&String> = applied.iter().collect();
        twice += applied.len() - distinct.len();
        lost += expected.iter().filter(|id| !distinct.contains(id)).count();
        fs::remove_dir_all(&out).expect("removed");
    }
    println!("kills={kills} weights_equal={equal} lost={lost} twice={twice}");
    assert!(equal && lost == 0 && twice == 0);
}

/// Runs to the end, which is an error; returns what it said.
fn refused(root: &Path, out: &Path) -> String {
    let status = start(root, out, None).wait().expect("it ends");
    let told = fs::read_to_string(root.join("stderr")).expect("stderr");
    assert_eq!(status.code(), Some(2), "{told}");
    told
}

#[test]
fn a_killed_run_over_a_killed_redis_ends_in_the_same_weights() {
    if !RedisServer::is_there_for("a killed run over a killed Redis") {
        return;
    }
    let (_folder, case) = case("float32");
    let (root, out) = (case.root.as_path(), case.root.join("run"));
    let weights = undisturbed(root);
    let data = tempfile::tempdir().expect("a folder");
    let mut server = RedisServer::start(data.path(), &[]).expect("redis-server starts");
    fs::write(root.join(REDIS), server.url()).expect("written");
    let mut restart = || {
        server.kill().expect("it runs");
        server.restart().expect("it starts again");
    };
    for point in
        ["rollout_before_commit:2", "judge_after_commit:3", "learner_after_assign:4", "checkpoint_before_rename:1"]
    {
        assert!(!wait(root, start(root, &out, Some(point)), LIMIT), "killed at {point}");
        restart();
    }
    let told = refused(root, &root.join("other"));
    assert!(told.contains("holds records of a run \"kills\" already; add --resume"), "{told}");
    assert!(!root.join("other").exists(), "nothing is claimed");
    let url = fs::read_to_string(root.join(REDIS)).expect("a URL");
    fs::remove_file(root.join(REDIS)).expect("removed");
    let told = refused(root, &out);
    assert!(told.contains(&format!("whose queue is {url}, not a file in the folder; mend --redis")), "{told}");
    fs::write(root.join(REDIS), url).expect("written");
    let child = start(root, &out, None);
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    };
    wait_for_steps(&out, 8);
    signal("-STOP"); // or it would be done before another one begins
    let told = refused(root, &out);
    assert!(told.contains("is in use by another process"), "{told}");
    restart();
    signal("-CONT");
    assert!(wait(root, child, LIMIT), "the last resume finishes");
    assert!(fs::read(out.join("policy/model.safetensors")).expect("a policy") == weights);
    assert_eq!(ledger(&out), ledger(&root.join("whole")));
}
