//! What a user does to a run that lives: a checkpoint now, a fork of it, other settings.

use std::{fs, path::Path};

use joust_proto::{
    coordinator::v1::{self as wire, RunState},
    learner::v1::SaveCheckpointRequest,
};
use joust_rpc::sized::learner_client;
use serde_json::Value;

use crate::{
    books,
    harness::{Cluster, LIMIT, ONE, accounts, run_now, wait_for, wait_until_done},
    twin,
};

/// Steps of a run that lasts long enough to be changed.
const STEPS: u64 = 120;

/// Metrics of a run's steps, in order.
fn steps(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["kind"] == "step").collect()
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("policy/model.safetensors")).expect("a policy")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fork_of_a_checkpoint_ends_in_the_weights_of_its_source() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    twin::inputs(&root);
    let Some(cluster) = Cluster::start(&folder.path().join("cluster"), &root, ONE) else { return };
    let file = root.join("run.toml").display().to_string();
    // Without what a queue alone remembers: nothing is replayed, nothing was sampled ahead.
    let steps_set = format!("learner.steps={STEPS}");
    let settings = ["pairing.replay.ratio=0.0", "pipeline.max_staleness=0", "learner.keep_checkpoints=100", &steps_set];
    let settings: Vec<&str> = settings.into_iter().flat_map(|setting| ["--set", setting]).collect();
    cluster.joust(&[&["run", "submit", &file, "--name", "source"], &settings[..]].concat());
    let mut client = cluster.client();
    let learner = wait_for("five steps", LIMIT, async || {
        let run = run_now(&mut client, "source").await?;
        let request = wire::ListWorkersRequest { role: wire::Role::Learner.into(), ..Default::default() };
        let found = client.list_workers(request).await.ok()?.into_inner().workers.pop()?;
        (run.steps_done >= 5).then_some(found.address)
    });
    let mut learner = learner_client(cluster.caller(&learner.await));
    let request = SaveCheckpointRequest { run_id: "source".into(), idempotency_key: "a".into() };
    let saved = learner.save_checkpoint(request).await.expect("saved").into_inner();
    assert_eq!(saved.checkpoint, format!("checkpoint-{}", saved.steps_done));
    assert!((5..STEPS).contains(&saved.steps_done), "{saved:?}");
    let refused = |args: &[&str], why: &str| {
        let told = cluster.refused(&[&["run", "fork", "source"], args].concat());
        assert!(told.contains(why), "{told}");
    };
    refused(&["fork", "--checkpoint", "checkpoint-999"], "one of checkpoint-");
    refused(&["source"], "exists already");
    refused(&["fork", "--set", "learner.steps=1", "--checkpoint", &saved.checkpoint], "set learner.steps");
    cluster.joust(&["run", "fork", "source", "fork", "--checkpoint", &saved.checkpoint]);
    for run in ["source", "fork"] {
        wait_until_done(&cluster, run, LIMIT).await;
    }
    assert!(weights(&cluster.run_folder("source")) == weights(&cluster.run_folder("fork")), "bit for bit the same");
    let first = steps(&cluster.run_folder("fork"))[0]["step"].as_u64();
    assert_eq!(first, Some(saved.steps_done));
    books::balance(&accounts(&cluster, "fork").await, (STEPS - saved.steps_done) * twin::PROMPTS);
    let events = cluster.joust(&["run", "watch", "source", "--json"]);
    assert!(events.contains("checkpoint") && events.contains(&saved.checkpoint), "{events}");
    let run = run_now(&mut client, "source").await.expect("an answer");
    assert_eq!(run.models.and_then(|set| set.policy).map(|policy| policy.version), Some(STEPS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_settings_hold_from_the_step_that_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    twin::inputs(&root);
    let Some(cluster) = Cluster::start(&folder.path().join("cluster"), &root, ONE) else { return };
    let file = root.join("run.toml").display().to_string();
    cluster.joust(&[
        "run",
        "submit",
        &file,
        "--name",
        "changed",
        "--set",
        &format!("learner.steps={STEPS}"),
        "--set",
        "learner.lr_scheduler_type=\"constant\"",
    ]);
    let mut client = cluster.client();
    wait_for("four steps", LIMIT, async || run_now(&mut client, "changed").await.filter(|run| run.steps_done >= 4))
        .await;
    for (change, why) in [
        ("learner.prompts_per_step=4", "learner.prompts_per_step cannot change while run changed lives"),
        ("policy.model=\"elsewhere\"", "below"),
        ("learner.learning_rat=1", "learning_rate"),
        ("learner.steps=1", "is below the"),
    ] {
        let told = cluster.refused(&["run", "set", "changed", change]);
        assert!(told.contains(why), "{change}: {told}");
    }
    let told = cluster.joust(&["run", "set", "changed", "learner.learning_rate=5e-4", "--json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let since = told["effective_step"].as_u64().expect("a step");
    wait_until_done(&cluster, "changed", LIMIT).await;
    let steps = steps(&cluster.run_folder("changed"));
    let numbers: Vec<u64> = steps.iter().filter_map(|step| step["step"].as_u64()).collect();
    assert_eq!(numbers, (0..STEPS).collect::<Vec<_>>(), "each step once");
    let rates: Vec<f64> = steps.iter().filter_map(|step| step["learning_rate"].as_f64()).collect();
    let expected: Vec<f64> = (0..STEPS).map(|step| if step < since { 1e-3 } else { 5e-4 }).collect();
    assert!((4..STEPS).contains(&since), "{since}");
    assert_eq!(rates, expected, "from step {since} on");
    books::balance(&accounts(&cluster, "changed").await, STEPS * twin::PROMPTS);
    let refused = cluster.refused(&["run", "set", "changed", "learner.learning_rate=1e-4"]);
    assert!(refused.contains("only a run that has not ended"), "{refused}");
    assert_eq!(run_now(&mut client, "changed").await.map(|run| run.state()), Some(RunState::Done));
}
