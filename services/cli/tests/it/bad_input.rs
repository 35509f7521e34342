//! Bad input: one clear message that names the thing, the value and what to do, exit code 2, and nothing half-written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use joust_testkit::tiny_folder;
use serde_json::{Value, json};

const RUN: &str = r#"
schema = 1
name = "bad"
preset = "oaif-dpo"
[policy]
model = "model"
dtype = "float32"
[data]
prompts = "prompts.jsonl"
eval_fraction = 0.2
[sampling]
max_new_tokens = 8
[[judge]]
name = "letters"
kind = "rule"
rules = [{ pattern = "[aeiou]", score = 1.0, max_count = 100 }]
[learner]
prompts_per_step = 2
steps = 2
[eval]
every = 0
[output]
archive = false
"#;

struct Bench {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        tiny_folder(&root.join("model"), 1);
        let prompts: String = (0..10).map(|i| format!("{{\"prompt\": \"the cat {i}\"}}\n")).collect();
        fs::write(root.join("prompts.jsonl"), prompts).expect("written");
        fs::write(root.join("run.toml"), RUN).expect("written");
        Self { _folder: folder, root }
    }

    fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    fn joust(&self, arguments: &[&str]) -> Output {
        let out = format!("output.dir={:?}", self.out().display().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_joust"));
        command.arg("run").arg(self.root.join("run.toml")).args(["--set", &out]).args(arguments);
        command.env("RUST_BACKTRACE", "0").output().expect("joust starts")
    }

    /// Runs and returns the message of a refusal that left nothing behind.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.joust(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(!self.out().exists(), "nothing may be written: {message}");
        assert!(message.lines().count() <= 3 && !message.contains("panicked"), "{message}");
        message
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.root.join(file);
        let mut value: Value = serde_json::from_str(&fs::read_to_string(&path).expect("read")).expect("JSON");
        change(&mut value);
        fs::write(path, value.to_string()).expect("written");
    }
}

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn append(path: &Path, text: &str) {
    let whole = fs::read_to_string(path).expect("read") + text;
    fs::write(path, whole).expect("written");
}

#[test]
fn keys_and_values_are_named_with_the_nearest_key() {
    let bench = Bench::new();
    has(&bench.refused(&["--set", "loss.beeta=0.2"]), &["loss.beeta", "loss.beta"]);
    has(&bench.refused(&["--set", "sampling.top_p=1.5"]), &["sampling.top_p", "1.5"]);
    has(&bench.refused(&["--set", "loss.name=sparse"]), &["loss.name", "sparse", "sparse_po"]);
    let heads = bench.refused(&["--set", "loss={ name = \"sparse_po\", heads = 3 }"]);
    has(&heads, &["loss.heads", "3", "1 or 2; the default of sparse_po is 1"]);
    has(&bench.refused(&["--set", "feedback.judge=leters"]), &["leters", "letters"]);
}

#[test]
fn model_folders_are_checked_file_by_file() {
    let bench = Bench::new();
    has(&bench.refused(&["--set", "policy.model=nowhere"]), &["nowhere", "config.json"]);
    let weights = bench.root.join("model/model.safetensors");
    let whole = fs::read(&weights).expect("read");
    fs::write(&weights, &whole[..whole.len() - 10]).expect("cut");
    has(&bench.refused(&[]), &["model.safetensors", "not a whole safetensors file"]);
    fs::write(&weights, &whole).expect("restored");
    bench.edit("model/config.json", |config| config["intermediate_size"] = json!(48));
    has(&bench.refused(&[]), &["gate_proj", "[64, 32]", "[48, 32]"]);
    bench.edit("model/config.json", |config| config["architectures"] = json!(["GPT2LMHeadModel"]));
    has(&bench.refused(&[]), &["architectures", "GPT2LMHeadModel", "LlamaForCausalLM"]);
    fs::remove_file(bench.root.join("model/tokenizer.json")).expect("removed");
    bench.edit("model/config.json", |config| {
        config["architectures"] = json!(["LlamaForCausalLM"]);
        config["intermediate_size"] = json!(64);
    });
    has(&bench.refused(&[]), &["tokenizer.json"]);
}

#[test]
fn a_tokenizer_with_more_ids_than_rows_is_refused() {
    let bench = Bench::new();
    let path = bench.root.join("model/tokenizer.json");
    bench.edit("model/tokenizer.json", |tokenizer| {
        let token = json!({"id": 5000, "content": "<extra>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
        tokenizer["added_tokens"].as_array_mut().expect("a list").push(token);
        tokenizer["model"]["vocab"]["<extra>"] = json!(5000);
    });
    has(&bench.refused(&[]), &[&path.display().to_string(), "5000", "embedding"]);
}

#[test]
fn prompt_lines_are_numbered_and_can_be_skipped() {
    let bench = Bench::new();
    let prompts = bench.root.join("prompts.jsonl");
    append(&prompts, "{\"prompt\": \n{\"text\": \"no prompt\"}\n");
    has(&bench.refused(&[]), &["prompts.jsonl:11", "not valid JSON", "data.on_error"]);
    let output = bench.joust(&["--set", "data.on_error=skip", "--dry-run"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    has(&told, &["skipped 1 rows", "neither prompt nor messages"]);
    fs::write(&prompts, "{\"prompt\": \"fine\"}\n{\"prompt\": \"".to_owned() + &"the cat ".repeat(200) + "\"}\n")
        .expect("written");
    has(&bench.refused(&[]), &["prompts.jsonl:2", "context holds 128"]);
}

#[test]
fn an_output_folder_belongs_to_one_run() {
    let bench = Bench::new();
    assert!(bench.joust(&[]).status.success());
    let before = fs::read(bench.out().join("metrics.jsonl")).expect("metrics");
    let refused = |arguments: &[&str]| {
        let output = bench.joust(arguments);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    has(&refused(&[]), &["out", "--resume", "output.dir"]);
    has(&refused(&["--set", "loss.beta=0.3", "--resume"]), &["out", "other settings", "output.dir"]);
    assert_eq!(fs::read(bench.out().join("metrics.jsonl")).expect("metrics"), before, "nothing was touched");
    has(&bench_without_run().refused(&["--resume"]), &["holds no run to resume"]);
}

fn bench_without_run() -> Bench {
    Bench::new()
}

#[test]
fn a_queue_file_of_another_kind_is_named() {
    let bench = Bench::new();
    assert!(bench.joust(&[]).status.success());
    fs::write(bench.out().join("queue.redb"), b"this is not a queue").expect("written");
    let output = bench.joust(&["--resume"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    has(&message, &["queue.redb"]);
}

#[test]
fn a_loss_that_is_not_finite_stops_and_names_the_examples() {
    let bench = Bench::new();
    let output = bench.joust(&[
        "--set",
        "learner.learning_rate=1e30",
        "--set",
        "learner.steps=6",
        "--set",
        "learner.max_grad_norm=0",
    ]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(["not finite", "loss is NaN", "gradient norm is"].iter().any(|part| message.contains(part)), "{message}");
    assert!(!bench.out().join("policy").exists(), "no broken policy is published");
}
