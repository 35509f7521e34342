//! Every loss, and every choice that no preset makes, runs end to end: two short steps on the stories example.

use std::{path::Path, process::Command};

use joust_config::{
    run::{LOSSES, LossName, LossSpec, Reads},
    works::name_of,
};
use serde_json::Value;

/// Runs two steps of four prompts with what is set and returns the metrics of the last.
fn run(name: &str, sets: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    run_into(&folder.path().join("run"), name, sets)
}

fn run_into(out: &Path, name: &str, sets: &[&str]) -> Value {
    let own = [
        format!("output.dir={:?}", out.display().to_string()),
        "learner={ steps = 2, prompts_per_step = 4, micro_batch = 2, learning_rate = 1e-4 }".into(),
        "sampling.max_new_tokens=12".into(),
        "feedback.ask=score".into(),
        "eval={ every = 0 }".into(),
        "pipeline.max_staleness=0".into(),
    ];
    let mut args = vec!["run", "../../examples/stories/run.toml"];
    args.extend(own.iter().map(String::as_str).chain(sets.iter().copied()).flat_map(|set| ["--set", set]));
    let done = Command::new(env!("CARGO_BIN_EXE_joust")).args(&args).output().expect("joust starts");
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    assert!(out.join("policy/model.safetensors").exists(), "{name}");
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() >= 2, "{name}");
    let last = lines.into_iter().next_back().expect("a line");
    let known = |key: &str| last[key].as_f64().is_some_and(f64::is_finite);
    assert!(known("loss") && known("grad_norm"), "{name}: {last}");
    last
}

fn players(spec: &LossSpec) -> &'static str {
    match (spec.name, spec.reads) {
        (LossName::Xpo | LossName::Pmpo, _) => r#"sampling.players=["policy", "reference"]"#,
        (LossName::Bonbon, _) => r#"sampling.players=["reference", "reference"]"#,
        (_, Reads::Opponent) => r#"sampling.players=["policy", "mixture"]"#,
        (_, Reads::Pairs | Reads::ScoredPairs) => r#"sampling.players=["policy", "policy"]"#,
        _ => r#"sampling.players=["policy", "policy", "policy"]"#,
    }
}

#[test]
fn every_loss_trains() {
    for spec in &LOSSES {
        let name = name_of(&spec.name);
        let loss = format!("loss={{ name = \"{name}\" }}");
        let select = format!("pairing.select={}", name_of(&spec.reads.selects()[0]));
        let last = run(&name, &[&loss, &select, players(spec), "feedback.label=soft"]);
        assert!(last["grad_norm"].as_f64().expect("a number") > 0.0, "{name}: {last}");
    }
}

#[test]
fn every_selection_of_pairs_trains() {
    for select in Reads::Pairs.selects() {
        let name = name_of(select);
        let last = run(&name, &[&format!("pairing.select={name}"), "sampling.num_generations=6", ONE]);
        assert!(last["pairs"].as_f64().expect("a number") >= 1.0, "{name}: {last}");
    }
}

/// One player gives all answers.
const ONE: &str = r#"sampling.players=["policy"]"#;

#[test]
fn weights_shares_and_other_references_and_players_train() {
    let last = run("weights", &[r#"pairing.weights=["wpo", "score_gap", "staleness"]"#]);
    let weight = last["weights/wpo"].as_f64().expect("a number");
    assert!(weight > 0.0 && weight < 10.0, "{last}");
    for by in ["clarity", "margin", "ches"] {
        let keep = format!("pairing.keep={{ by = \"{by}\", share = 0.5 }}");
        let last = run(by, &["pairing.select=all_pairs", "sampling.num_generations=4", ONE, &keep]);
        let count = |key: &str| last[key].as_f64().expect("a number");
        assert_eq!(count("pairs"), ((count("pairs") + count("pairs/filtered")) / 2.0).ceil(), "{by}: {last}");
    }
    let last = run("annotate", &["sampling={ players = [\"policy\"], num_generations = 6, annotate = 2 }"]);
    assert!(last["pairs"].as_f64().expect("a number") <= 4.0, "{last}");
    let margin = "sampling={ players = [\"policy\"], num_generations = 6, annotate = 2, annotate_by = \"margin\" }";
    let last = run("annotate_by", &[margin]);
    assert!(last["pairs"].as_f64().expect("a number") <= 4.0, "{last}");
    let order = r#"judge=[{ name = "style", kind = "players", order = ["styled", "policy"] }]"#;
    let styled = r#"sampling={ players = ["policy", "styled"], style = "Everyone was happy. " }"#;
    let sure = "sampling.missing_eos_penalty=0"; // which moves no certainty
    let last = run("styled", &[order, styled, sure, "feedback.judge=style", "eval.judge=style"]);
    assert_eq!(last["objective/scores_margin"].as_f64(), Some(1.0), "the styled answer is always chosen: {last}");
    let revised =
        r#"sampling={ players = ["policy", "styled", "revised", "revised"], style = "Everyone was happy. " }"#;
    let request = r#"sampling.revision={ feedback = "What is missing?", request = "Again. " }"#;
    let last = run("revised", &[revised, request, "pairing.select=all_pairs", "learner.prompts_per_step=8"]);
    assert!(last["pairs"].as_f64().expect("a number") > 24.0, "8 prompts with 6 pairs each but for ties: {last}");
    let last = run("rationale", &["feedback.rationale={ weight = 0.01 }", "learner.prompts_per_step=16"]);
    let count = last["rationales/trained"].as_f64().expect("a number");
    assert!(count >= 1.0 && last["rationales/nll"].as_f64().is_some_and(|nll| nll > 0.0), "{last}");
    for optimizer in ["rmsprop", "adafactor"] {
        run(optimizer, &[&format!("learner.optimizer={optimizer}")]);
    }
    run("ema", &["reference.kind=ema", "sampling.ema_decay=0.5"]);
    run("past", &[r#"sampling.players=["policy", "past"]"#]);
    let last = run("none", &["reference.kind=none", "loss={ name = \"simpo\" }"]);
    assert!(last["objective/kl"].is_null(), "{last}");
}

#[test]
fn a_reward_model_learns_from_a_few_gold_labels() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let example = std::fs::read_to_string("../../examples/stories/run.toml").expect("the example");
    let stories = Path::new("../../examples/stories").canonicalize().expect("the folder");
    let base = format!("{:?}", stories.join("base").display().to_string());
    // The rule judge of the example becomes the teacher of a model that begins as the base.
    let name = example.split("[[judge]]\nname = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a judge");
    let learned = format!(
        "\n[[judge]]\nname = \"learned\"\nkind = \"learned\"\ngold = \"{name}\"\nmodel = {base}\nevery = 8\nlabels = 6\nbudget = 15\n\
         learning_rate = 1e-3\n"
    );
    let file = folder.path().join("run.toml");
    std::fs::write(&file, format!("{example}{learned}")).expect("written");
    let sets = [
        format!("output.dir={:?}", out.display().to_string()),
        format!("policy.model={base}"),
        format!("data.prompts={:?}", stories.join("prompts.jsonl").display().to_string()),
        "learner={ steps = 10, prompts_per_step = 4, micro_batch = 4, learning_rate = 1e-4, checkpoint_every = 2 }"
            .into(),
        "sampling.max_new_tokens=24".into(),
        "sampling.missing_eos_penalty=0".into(),
        "feedback={ ask = \"score\", judge = \"learned\" }".into(),
        format!("eval={{ every = 0, judge = {name:?} }}"),
        "pipeline.max_staleness=0".into(),
    ];
    let mut args = vec!["run", file.to_str().expect("a path")];
    args.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
    let done = Command::new(env!("CARGO_BIN_EXE_joust")).args(&args).output().expect("joust starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // Forty prompts, a lesson at every eighth, six labels each until fifteen are spent: three lessons.
    let kept = out.join("judges/learned");
    let counts: Value = serde_json::from_slice(&std::fs::read(kept.join("lessons.json")).expect("kept")).expect("JSON");
    assert_eq!(counts, serde_json::json!({ "version": 3, "asked": 15 }));
    let folders = std::fs::read_dir(&kept).expect("a folder").filter(|e| e.as_ref().is_ok_and(|e| e.path().is_dir()));
    assert_eq!(folders.count(), 1, "the last version stays");
    assert!(kept.join("3/model.safetensors").exists());
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let trained: Vec<f64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["prompts/trained"].as_f64().unwrap_or_default())
        .collect();
    // A head of zeros calls everything a tie; the first lesson ends that.
    assert_eq!(trained[0], 0.0, "{trained:?}");
    assert!(trained[4..].iter().all(|prompts| *prompts > 0.0), "{trained:?}");
}
