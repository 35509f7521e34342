//! What training verbs leave on the disk: their output, and what others keep beside it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

const SFT: &str = r#"
schema = 1
name = "outputs"
[model.new]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 64
[tokenizer]
vocab_size = 260
[data]
train = "train.jsonl"
max_length = 64
eval_fraction = 0
[learner]
batch_size = 2
steps = 1
learning_rate = 1e-3
threads = 1
[output]
dir = "base"
"#;

const REWARD: &str = r#"
schema = 1
name = "outputs"
[model]
base = "base"
[data]
train = "pairs.jsonl"
max_length = 64
eval_fraction = 0
[learner]
batch_size = 2
steps = 1
threads = 1
[output]
dir = "reward"
"#;

fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joust"));
    command.args(arguments).current_dir(root).env("RUST_BACKTRACE", "0").env("TMPDIR", root.join("tmp"));
    command
}

fn joust(root: &Path, arguments: &[&str]) -> Output {
    command(root, arguments).output().expect("joust starts")
}

fn write_inputs(root: &Path) {
    fs::create_dir(root.join("tmp")).expect("made");
    let rows = |row: &str| format!("{row}\n").repeat(4);
    let supervised = r#"{"prompt": "Tom had a kite.", "completion": " It was red."}"#;
    let pair = r#"{"prompt": "Tom had a kite.", "chosen": " It was red.", "rejected": " No."}"#;
    for (name, text) in [
        ("train.jsonl", rows(supervised)),
        ("pairs.jsonl", rows(pair)),
        ("sft.toml", SFT.into()),
        ("reward.toml", REWARD.into()),
    ] {
        fs::write(root.join(name), text).expect("written");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("read");
    entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect()
}

/// Lists what is in a folder, with what is in its folders.
fn listed(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("read") {
        let path = entry.expect("read").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        match path.is_dir() && !path.join("config.json").is_file() {
            true => found.extend(listed(&path).into_iter().map(|inner| format!("{name}/{inner}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

#[test]
fn training_leaves_its_output_and_the_folders_of_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_inputs(root);
    let made = joust(root, &["sft", "sft.toml"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let others = [".v1.5.retired", ".v1.5.staging", "v1.staging", "v1.retired", ".v1.5.joust-mine"];
    for (verb, file) in [("sft", "sft.toml"), ("train-reward", "reward.toml")] {
        let at = root.join(verb);
        for other in others {
            fs::create_dir_all(at.join(other)).expect("made");
            fs::write(at.join(other).join("mine.txt"), "precious").expect("written");
        }
        let before = listed(&at);
        let out = format!("output.dir={:?}", format!("{verb}/v1.5"));
        let failed = joust(root, &[verb, file, "--set", &out, "--set", "data.max_length=1"]);
        assert_eq!(failed.status.code(), Some(2), "{verb} of rows that do not fit");
        assert_eq!(listed(&at), before, "{verb} that failed");
        let made = joust(root, &[verb, file, "--set", &out]);
        assert!(made.status.success(), "{verb}: {}", String::from_utf8_lossy(&made.stderr));
        let after: Vec<String> = listed(&at).into_iter().filter(|name| name != "v1.5").collect();
        assert_eq!(after, before, "{verb} that went well");
        assert!(at.join("v1.5/config.json").is_file());
    }
    assert_eq!(names(&root.join("tmp")), Vec::<String>::new(), "nothing is left among temporary files");
}

#[test]
fn a_signal_removes_what_is_half_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_inputs(root);
    for signal in ["INT", "TERM"] {
        let long = ["sft", "sft.toml", "--set", "learner.steps=1000000", "--set", "output.dir=long"];
        let mut child = command(root, &long).spawn().expect("joust starts");
        let until = Instant::now() + Duration::from_secs(60);
        while names(&root.join("tmp")).is_empty() {
            assert!(Instant::now() < until, "no temporary folder was made");
            // Another process is looked at, which tells nothing.
            std::thread::sleep(Duration::from_millis(10));
        }
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{signal}");
        assert_eq!(names(&root.join("tmp")), Vec::<String>::new(), "{signal}");
        assert!(!root.join("long").exists());
    }
}
