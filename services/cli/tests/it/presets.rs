//! Each preset that runs makes the stories model better by its judge.

use std::{path::Path, process::Command};

use joust_config::{
    run::{Point, Preset, Select},
    works::name_of,
};
use serde_json::Value;

const STEPS: u64 = 24;

fn joust(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_joust")).args(args).output().expect("joust starts")
}

/// Runs the stories example with a preset and returns the lines of its metrics.
fn run(preset: &str, point: &Point, folder: &Path) -> Vec<Value> {
    // Rankings and comparisons give no scores to draw a line through; there the answers are scored, or compared at the end.
    let ask = if point.select == Select::WinRate { "" } else { "ask = \"score\"\n" };
    let out = folder.join(preset);
    // The example writes some of the choices itself; what it writes would win over the preset.
    let example = std::fs::read_to_string("../../examples/stories/run.toml").expect("the example");
    let text = example
        .replace("preset = \"oaif-dpo\"", &format!("preset = \"{preset}\""))
        .replace("ask = \"score\"\n", ask)
        .replace("[loss]\nbeta = 0.1\n", "");
    assert!(!text.contains("beta = 0.1") && text.contains(preset), "the example has changed");
    let file = folder.join(format!("{preset}.toml"));
    std::fs::write(&file, text).expect("written");
    let stories = Path::new("../../examples/stories").canonicalize().expect("the folder");
    let sets = [
        format!("output.dir={:?}", out.display().to_string()),
        format!("policy.model={:?}", stories.join("base").display().to_string()),
        format!("data.prompts={:?}", stories.join("prompts.jsonl").display().to_string()),
        format!("learner.steps={STEPS}"),
        format!("eval.every={STEPS}"),
        "eval.prompts=128".into(),
        "learner.prompts_per_step=16".into(),
        "sampling.num_generations=3".into(),
    ];
    let same = point.players.len() > 2;
    let wanted = sets.iter().filter(|set| same || !set.contains("num_generations"));
    let mut args = vec!["run", file.to_str().expect("a path")];
    args.extend(wanted.flat_map(|set| ["--set", set.as_str()]));
    let done = joust(&args);
    assert!(done.status.success(), "{preset}: {}", String::from_utf8_lossy(&done.stderr));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Slope of a least-squares line through (0, y0), (1, y1), .., and half of its 95 % interval.
fn slope(y: &[f64]) -> (f64, f64) {
    let n = y.len() as f64;
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, y.iter().sum::<f64>() / n);
    let x = |i: usize| i as f64 - mean_x;
    let spread: f64 = (0..y.len()).map(|i| x(i) * x(i)).sum();
    let slope = y.iter().enumerate().map(|(i, y)| x(i) * (y - mean_y)).sum::<f64>() / spread;
    let rest: f64 = y.iter().enumerate().map(|(i, y)| (y - mean_y - slope * x(i)).powi(2)).sum();
    (slope, 1.96 * (rest / (n - 2.0) / spread).sqrt())
}

#[test]
fn every_preset_that_runs_raises_the_reward() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tried = 0;
    for (preset, point) in Preset::ALL.map(|preset| (preset, Point::of(preset))) {
        let name = name_of(&preset);
        let by_rank = point.select == Select::WinRate;
        let metrics = run(&name, &point, folder.path());
        let scores: Vec<f64> = metrics.iter().filter_map(|line| line["objective/scores"].as_f64()).collect();
        let last = metrics.last().expect("lines");
        if by_rank {
            assert!(scores.is_empty());
            assert!(last["eval/win_rate_low"].as_f64().expect("a rate") > 0.5, "{name}: {last}");
        } else {
            let (slope, half) = slope(&scores);
            assert_eq!(scores.len() as u64, STEPS, "{name}");
            println!("{name}: slope {slope:.4} +- {half:.4} a step");
            assert!(slope - half > 0.0, "{name}: slope {slope} +- {half}");
        }
        tried += 1;
    }
    assert_eq!(tried, 13);
}

#[test]
fn presets_are_listed_and_shown() {
    let text = |args: &[&str]| String::from_utf8(joust(args).stdout).expect("UTF-8");
    let table = text(&["presets"]);
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).expect("listed").to_owned();
    assert_eq!(table.lines().count(), 14);
    assert!(line("sppo").contains("rank, soft") && line("sppo").contains("previous"), "{table}");
    assert!(line("ppo").contains("score, soft"), "{table}");
    assert!(text(&["presets", "iterative-dpo"]).contains("\"policy\",\"policy\""));
    let refused = joust(&["presets", "spo"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("known are oaif-dpo"));
}
