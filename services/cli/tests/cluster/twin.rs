//! A deterministic run ends in the same weights in one process and in a cluster (R1).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use joust_testkit::tiny_folder;

use crate::{
    books,
    harness::{Cluster, LIMIT, ONE, accounts, wait_until_done},
};

/// Optimizer steps of the run.
pub const STEPS: u64 = 24;
/// Prompts of a step.
pub const PROMPTS: u64 = 8;

const RUN: &str = r#"
schema = 1
name = "twin"
preset = "oaif-dpo"
deterministic = true
[policy]
model = "model"
dtype = "bfloat16"
[data]
prompts = "prompts.jsonl"
epochs = 20
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
micro_batch = 4
learning_rate = 1e-3
steps = 24
checkpoint_every = 5
threads = 1
[eval]
every = 10
prompts = 4
"#;

/// Writes model, prompts and run file.
pub fn inputs(root: &Path) {
    tiny_folder(&root.join("model"), 5);
    let prompts: String = (0..60).map(|i| format!("{{\"prompt\": \"the cat number {i}\"}}\n")).collect();
    fs::write(root.join("prompts.jsonl"), prompts).expect("written");
    fs::write(root.join("run.toml"), RUN).expect("written");
}

/// Runs it under a name in one process; returns the folder. The name is part of the ids of all records, which order what is replayed.
pub fn alone(root: &Path, name: &str) -> PathBuf {
    let out = root.join(name);
    let output = Command::new(env!("CARGO_BIN_EXE_joust"))
        .arg("run")
        .arg(root.join("run.toml"))
        .args(["--set", &format!("output.dir={:?}", out.display().to_string()), "--set", &format!("name={name:?}")])
        .output()
        .expect("joust starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// Gives it to a cluster under a name.
pub fn submit(cluster: &Cluster, root: &Path, name: &str) {
    cluster.joust(&["run", "submit", &root.join("run.toml").display().to_string(), "--name", name]);
}

/// Checks that a finished run of the cluster has the weights and the ledger of the one in one process.
pub fn same(cluster: &Cluster, name: &str, alone: &Path) {
    let together = cluster.run_folder(name);
    let weights = |out: &Path| fs::read(out.join("policy/model.safetensors")).expect("a policy");
    assert!(weights(alone) == weights(&together), "{name}: bit for bit the same");
    let ledger = |out: &Path| fs::read_to_string(out.join("ledger.jsonl")).expect("a ledger");
    assert_eq!(ledger(alone), ledger(&together), "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cluster_ends_in_the_weights_of_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    inputs(&root);
    let Some(cluster) = Cluster::start(&folder.path().join("cluster"), &root, ONE) else { return };
    let alone = alone(&root, "twin");
    let bytes = |folder: &Path| fs::read(folder.join("model.safetensors")).expect("a model");
    assert!(bytes(&alone.join("policy")) != bytes(&root.join("model")), "the run trains");
    submit(&cluster, &root, "twin");
    wait_until_done(&cluster, "twin", LIMIT).await;
    same(&cluster, "twin", &alone);
    books::balance(&accounts(&cluster, "twin").await, STEPS * PROMPTS);
}
