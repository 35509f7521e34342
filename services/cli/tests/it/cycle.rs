//! The cycle example: an intransitive judge on a language model, whose measured shares are held against the points that theory gives.
//!
//! `make cycle` plays three seeds, prints the table and draws the orbits; without `JOUST_CYCLE` one seed is played.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use joust_games::{Game, Path as Orbit, Show, dpo_point, draw, nash, nash_md_point};
use parquet::{file::serialized_reader::SerializedFileReader, record::Field};
use serde_json::Value;

const KINDS: [&str; 3] = ["sun", "rain", "snow"];
const TAU: f64 = 0.2;

/// One method: what is set beside the example's run file, and where it should end.
struct Case {
    name: &'static str,
    sets: &'static [&'static str],
    point: fn(&Game) -> Vec<f64>,
}

const CASES: [Case; 4] = [
    Case { name: "ipo", sets: &[], point: |game| nash(game, TAU) },
    Case { name: "nash_md (0)", sets: &["preset=nash-md", "sampling.mixture_coef=0"], point: |game| nash(game, TAU) },
    Case {
        name: "nash_md (0.25)",
        sets: &["preset=nash-md", "sampling.mixture_coef=0.25"],
        point: |game| nash_md_point(game, TAU, 0.25),
    },
    // At 0.2 the field around DPO's point turns far more than it pulls, and sampled pairs keep it turning.
    Case { name: "dpo (beta 1)", sets: &["preset=oaif-dpo", "loss.beta=1"], point: |game| dpo_point(game, 1.0) },
];

/// SPPO as shipped, with eta 0.8 and the sizes of the game: 500 iterations.
const SPPO: &[&str] = &[
    "preset=sppo",
    "loss.beta=1.25",
    "learner.prompts_per_step=32",
    "learner.micro_batch=32",
    "learner.learning_rate=5e-4",
    "learner.lr_scheduler_type=constant",
    "learner.steps=4000",
    "output.archive=true",
];

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn joust(&self, args: &[&str]) -> String {
        let done = Command::new(env!("CARGO_BIN_EXE_joust")).args(args).output().expect("joust starts");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("UTF-8")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs the example with a seed and returns the output folder.
    fn run(&self, name: &str, seed: u64, sets: &[&str]) -> PathBuf {
        let out = self.path(&format!("{name}-{seed}"));
        let own =
            [format!("policy.model={:?}", self.path("base")), format!("output.dir={out:?}"), format!("seed={seed}")];
        let all: Vec<&str> = own.iter().map(String::as_str).chain(sets.iter().copied()).collect();
        let mut args = vec!["run", "../../examples/cycle/run.toml"];
        args.extend(all.iter().flat_map(|set| ["--set", *set]));
        self.joust(&args);
        out.into()
    }

    /// Returns the exact probability of each kind under a model: that of its first token.
    fn shares(&self, model: &str) -> Vec<f64> {
        let lines = self.joust(&[
            "sample",
            model,
            "--prompt",
            "Tomorrow brings",
            "-n",
            "2000",
            "--max-new-tokens",
            "3",
            "--json",
        ]);
        let mut shares = vec![0.0; KINDS.len()];
        for line in lines.lines() {
            let answer: Value = serde_json::from_str(line).expect("JSON");
            let text = answer["completion"].as_str().expect("text").trim();
            if let Some(kind) = KINDS.iter().position(|kind| *kind == text) {
                shares[kind] = answer["logprobs"][0].as_f64().expect("a number").exp();
            }
        }
        assert!(shares.iter().sum::<f64>() > 0.97, "{model} says something else: {shares:?}");
        normalised(&shares)
    }
}

fn normalised(shares: &[f64]) -> Vec<f64> {
    let total: f64 = shares.iter().sum();
    shares.iter().map(|share| share / total).collect()
}

fn total_variation(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

/// Reads the shares of each policy version from the archive of a run.
fn versions(out: &Path) -> Vec<Vec<f64>> {
    let mut counts: Vec<Vec<f64>> = Vec::new();
    let parts = fs::read_dir(out.join("archive")).expect("an archive").map(|part| part.expect("a file").path());
    for part in parts.filter(|part| part.extension().is_some_and(|end| end == "parquet")) {
        let reader = SerializedFileReader::new(fs::File::open(part).expect("readable")).expect("Parquet");
        for row in reader.into_iter().map(|row| row.expect("a row")) {
            let column = |name: &str| row.get_column_iter().find(|(column, _)| *column == name).expect("a column").1;
            let (Field::Str(text), Field::ULong(version)) = (column("completion"), column("policy_version")) else {
                unreachable!("completion is text and policy_version a number");
            };
            let version = *version as usize;
            counts.resize_with(counts.len().max(version + 1), || vec![0.0; KINDS.len()]);
            if let Some(kind) = KINDS.iter().position(|kind| *kind == text.trim()) {
                counts[version][kind] += 1.0;
            }
        }
    }
    counts.iter().map(|counts| normalised(counts)).collect()
}

fn show(shares: &[f64]) -> String {
    shares.iter().map(|share| format!("{share:.3}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn measured_shares_are_those_that_theory_predicts() {
    let seeds = if std::env::var_os("JOUST_CYCLE").is_some() { 3 } else { 1 };
    let bench = Bench { folder: tempfile::tempdir().expect("a folder") };
    let base = bench.path("base");
    bench.joust(&["sft", "../../examples/cycle/sft.toml", "--set", &format!("output.dir={base:?}")]);
    let game = Game { name: "weather", reference: bench.shares(&base), ..Game::noisy_cycle() };
    println!("reference shares of {}: {}", KINDS.join(", "), show(&game.reference));
    println!("{:15} {:4} {:20} {:20} distance", "method", "seed", "measured", "predicted");
    let mut worst: f64 = 0.0;
    let mut line = |name: &str, seed: u64, found: &[f64], expected: &[f64]| {
        let distance = total_variation(found, expected);
        println!("{name:15} {seed:<4} {:20} {:20} {distance:.3}", show(found), show(expected));
        worst = worst.max(distance);
    };
    let mut drawing = Show { rows: Vec::new(), paths: Vec::new() };
    for seed in 0..seeds {
        for (number, case) in CASES.iter().enumerate() {
            let out = bench.run(&format!("case{number}"), seed, case.sets);
            let policy = out.join("policy").display().to_string();
            line(case.name, seed, &bench.shares(&policy), &(case.point)(&game));
        }
        // The equilibrium without a regulariser: the judge's cycle alone decides, whatever the reference.
        let expected = [2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0];
        let policies = versions(&bench.run("sppo", seed, SPPO));
        let mean = |kind: usize| policies.iter().map(|policy| policy[kind]).sum::<f64>() / policies.len() as f64;
        let average: Vec<f64> = (0..KINDS.len()).map(mean).collect();
        line("sppo, average", seed, &average, &expected);
        let last = policies.last().expect("versions").clone();
        let orbit = Orbit { policies, last, average };
        let far = orbit.policies[orbit.policies.len() / 2..].iter().map(|policy| total_variation(policy, &expected));
        assert!(far.fold(0.0, f64::max) > 0.1, "the last policies settle");
        drawing.paths.push((format!("sppo, seed {seed}"), orbit, expected.to_vec()));
    }
    if let Some(file) = std::env::var_os("JOUST_CYCLE") {
        draw(&drawing, Path::new(&file)).expect("drawn");
    }
    assert!(worst < 0.05, "{worst}");
}
