//! LoRA runs: what they learn, what they write, how they go on, and what they refuse.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use joust_testkit::tiny_folder;
use serde_json::Value;

const RUN: &str = r#"
schema = 1
name = "adapters"
preset = "oaif-dpo"
deterministic = true
[policy]
model = "model"
dtype = "float32"
lora = { rank = 4, alpha = 8, targets = ["all-linear"] }
[data]
prompts = "prompts.jsonl"
epochs = 10
eval_fraction = 0.1
[sampling]
max_new_tokens = 12
[feedback]
ask = "score"
[[judge]]
name = "letters"
kind = "rule"
rules = [{ pattern = "[aeiou]", score = 1.0, max_count = 100 }]
[learner]
prompts_per_step = 4
micro_batch = 2
learning_rate = 3e-3
steps = 6
checkpoint_every = 2
[eval]
every = 0
[output]
archive = false
"#;

const TENSORS: &str = "policy/adapter_model.safetensors";

struct Bench {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        tiny_folder(&root.join("model"), 5);
        let prompts: String = (0..40).map(|i| format!("{{\"prompt\": \"the cat number {i}\"}}\n")).collect();
        fs::write(root.join("prompts.jsonl"), prompts).expect("written");
        fs::write(root.join("run.toml"), RUN).expect("written");
        Self { _folder: folder, root }
    }

    /// Prepares a run into the folder `name`.
    fn command(&self, name: &str, sets: &[&str]) -> Command {
        let out = format!("output.dir={:?}", self.root.join(name).display().to_string());
        let mut command = joust();
        command.arg("run").arg(self.root.join("run.toml"));
        command.args(std::iter::once(out.as_str()).chain(sets.iter().copied()).flat_map(|set| ["--set", set]));
        command
    }

    fn run(&self, name: &str, sets: &[&str]) -> PathBuf {
        let done = self.command(name, sets).output().expect("joust starts");
        assert!(done.status.success(), "{name}: {}", told(&done));
        self.root.join(name)
    }

    fn refused(&self, sets: &[&str]) -> String {
        let done = self.command("refused", sets).output().expect("joust starts");
        assert_eq!(done.status.code(), Some(2), "{}", told(&done));
        assert!(!self.root.join("refused").exists(), "nothing may be written");
        told(&done)
    }
}

fn joust() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joust"));
    command.env("RUST_BACKTRACE", "0");
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn metrics(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn value(line: &Value, key: &str) -> f64 {
    let found = line[key].as_f64();
    assert!(found.is_some(), "no {key} in {line}");
    found.unwrap_or_default()
}

fn greedy(model: &Path) -> Value {
    let model = model.to_str().expect("a path");
    let prompt = ["--prompt", "Tom went to the beach.", "--temperature", "0", "--json"];
    let done = joust().args(["sample", model]).args(prompt).output().expect("joust starts");
    assert!(done.status.success(), "{}", told(&done));
    serde_json::from_slice::<Value>(&done.stdout).expect("JSON")["token_ids"].clone()
}

#[test]
fn an_adapter_raises_the_win_rate_and_leaves_the_base_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("sad");
    let base = Path::new("../../examples/stories/base");
    let before = fs::read(base.join("model.safetensors")).expect("the base");
    let sets = [
        format!("output.dir={:?}", out.display().to_string()),
        "policy.lora={ rank = 8, alpha = 16, targets = [\"all-linear\"] }".into(),
        "learner.steps=12".into(),
        "learner.warmup_steps=2".into(),
        "learner.lr_scheduler_type=constant".into(),
        "learner.learning_rate=3e-3".into(),
        "eval.prompts=96".into(),
    ];
    let mut command = joust();
    command.args(["run", "../../examples/stories/sad.toml"]).args(sets.iter().flat_map(|set| ["--set", set]));
    let done = command.output().expect("joust starts");
    assert!(done.status.success(), "{}", told(&done));
    let lines = metrics(&out);
    let last = lines.last().expect("a line");
    assert!(value(last, "eval/win_rate_low") > 0.5, "{last}");
    // The reference is the base: the policy moves away from it.
    let moved = [0, 11].map(|step: usize| value(&lines[step], "objective/kl"));
    assert!(moved[0].abs() < 1e-3 && moved[1] > 0.1, "{moved:?}");
    let policy = out.join("policy");
    assert!(!policy.join("model.safetensors").exists() && policy.join("tokenizer.json").exists());
    assert_eq!(fs::read(base.join("model.safetensors")).expect("the base"), before);

    let merged = folder.path().join("merged");
    let export =
        ["ckpt", "export", out.to_str().expect("a path"), "--merge", "--out", merged.to_str().expect("a path")];
    let done = joust().args(export).output().expect("joust starts");
    assert!(done.status.success(), "{}", told(&done));
    assert!(merged.join("model.safetensors").exists() && !merged.join("adapter_config.json").exists());
    assert_eq!(greedy(&policy), greedy(&merged));
    assert_ne!(greedy(&policy), greedy(base));
    let eval = ["eval", policy.to_str().expect("a path"), "--against", "../../examples/stories/base", "--limit", "64"];
    let done =
        joust().args(eval).args(["--run", "../../examples/stories/sad.toml", "--json"]).output().expect("starts");
    assert!(done.status.success(), "{}", told(&done));
    let figures: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert!(value(&figures, "win_rate") > 0.5, "{figures}");
}

#[test]
fn a_killed_run_with_dropout_ends_in_the_same_bits() {
    let bench = Bench::new();
    let sets = [
        "policy.lora.dropout=0.2",
        "policy.dtype=bfloat16",
        "reference.kind=ema",
        "sampling.ema_decay=0.5",
        r#"sampling.players=["policy", "past"]"#,
        "learner.iteration_steps=2",
    ];
    let whole = bench.run("whole", &sets);
    let weights = fs::read(whole.join(TENSORS)).expect("an adapter");
    for point in ["learner_after_step:4", "learner_after_publish:1"] {
        let resume = bench.root.join("killed/run.json").exists();
        let mut command = bench.command("killed", &sets);
        let killed = command.args(resume.then_some("--resume")).env("JOUST_FAILPOINT", point).output().expect("starts");
        assert!(!killed.status.success(), "killed at {point}");
    }
    let done = bench.command("killed", &sets).arg("--resume").output().expect("joust starts");
    assert!(done.status.success(), "{}", told(&done));
    assert!(fs::read(bench.root.join("killed").join(TENSORS)).expect("an adapter") == weights);
    // The masks are part of the run: another probability gives other weights.
    let sets = sets.map(|set| if set.contains("dropout") { "policy.lora.dropout=0" } else { set });
    assert!(fs::read(bench.run("undropped", &sets).join(TENSORS)).expect("an adapter") != weights);
}

#[test]
fn a_run_goes_on_from_an_adapter_and_is_held_to_it() {
    let bench = Bench::new();
    let first = bench.run("first", &[]);
    assert!(value(&metrics(&first)[5], "objective/kl").abs() > 1e-4);
    let init = format!("policy.lora.init={:?}", first.join("policy").display().to_string());
    let second = bench.run("second", &[&init, "policy.lora.merge=true"]);
    assert!(
        value(&metrics(&second)[0], "objective/kl").abs() < 1e-6,
        "the reference is the adapter that it began with"
    );
    assert!(second.join("policy/model.safetensors").exists());
    assert!(bench.refused(&[&init, "policy.lora.rank=5"]).contains("has rank = 4, alpha = 8"));
    let model = format!("policy.model={:?}", first.join("policy").display().to_string());
    assert!(bench.refused(&[&model]).contains("policy.lora.init"));
    // Without policy.lora the adapter is merged, and all weights are trained.
    let text = RUN.lines().filter(|line| !line.starts_with("lora")).collect::<Vec<_>>().join("\n");
    fs::write(bench.root.join("run.toml"), text).expect("written");
    assert!(bench.run("full", &[&model, "learner.steps=1"]).join("policy/model.safetensors").exists());
}

#[test]
fn targets_that_match_nothing_are_refused_with_the_modules() {
    let message = Bench::new().refused(&[r#"policy.lora.targets=["q_proj", "query"]"#]);
    assert!(message.contains("policy.lora.targets") && message.contains("\"query\" matches no module"), "{message}");
    assert!(message.contains("self_attn.q_proj") && message.contains("mlp.down_proj"), "{message}");
}

#[test]
fn two_ranks_train_the_same_adapter() {
    let bench = Bench::new();
    let losses = |name: &str, ranks: &str| -> Vec<f64> {
        let out = bench.run(name, &[ranks, "learner.steps=2"]);
        assert!(out.join(TENSORS).exists());
        metrics(&out).iter().map(|line| value(line, "loss")).collect()
    };
    let (one, two) = (losses("one", "learner.ranks=1"), losses("two", "learner.ranks=2"));
    for (a, b) in one.iter().zip(&two) {
        assert!((a - b).abs() < 1e-4 * a.abs(), "{one:?} {two:?}");
    }
}

#[test]
fn a_critic_is_trained_beside_an_adapter_and_memory_counts_both() {
    let bench = Bench::new();
    let ppo = ["preset=ppo", "learner.steps=2"];
    let out = bench.run("ppo", &ppo);
    assert!(metrics(&out).iter().all(|line| value(line, "grad_norm") > 0.0));
    let estimate = |sets: &[&str]| {
        let done = bench.command("none", sets).arg("--dry-run").output().expect("joust starts");
        assert!(done.status.success(), "{}", told(&done));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let text = estimate(&ppo);
    // 2 layers; rank 4 for q and o 32 + 32, k and v 32 + 16, gate and up and down 32 + 64.
    let trained = 2 * 4 * (2 * 64 + 2 * 48 + 3 * 96);
    assert!(text.contains(&format!("parameters, {trained} trained in adapters")), "{text}");
    assert!(text.contains("# base of policy and reference, for training") && text.contains("# critic"), "{text}");
}
