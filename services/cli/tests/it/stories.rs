//! The stories example, short: the reversed rule makes the policy sadder, so it is the judge that steers.

use std::{path::Path, process::Command};

use serde_json::Value;

#[test]
fn the_reversed_rule_raises_its_own_win_rate() {
    let root = Path::new("../..");
    let folder = tempfile::tempdir().expect("a folder");
    let out = format!("output.dir={:?}", folder.path().join("sad").display().to_string());
    let run = Command::new(env!("CARGO_BIN_EXE_joust"))
        .arg("run")
        .arg(root.join("examples/stories/sad.toml"))
        .args(["--set", &out, "--set", "learner.steps=20", "--set", "eval.prompts=128"])
        .output()
        .expect("joust starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let metrics = std::fs::read_to_string(folder.path().join("sad/metrics.jsonl")).expect("metrics");
    let last: Value = serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["kind"], "eval");
    assert!(last["eval/win_rate_low"].as_f64().expect("a rate") > 0.5, "{last}");
}
