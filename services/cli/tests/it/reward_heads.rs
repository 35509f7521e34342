//! Reward models with margins from hidden states (Legend) and without training (DRM), against the same numbers from single sequences.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use joust_core::Prompt;
use joust_data::Tokenizer;
use joust_model::{Llama, load, sequence_scores};
use joust_testkit::tiny_folder;
use tch::{Kind, Tensor};

const REWARD: &str = r#"
schema = 1
name = "reward"
model = { base = "base", dtype = "float32" }
data = { train = "pairs.jsonl", eval_fraction = 0.0, max_length = 96 }
learner = { batch_size = 24, micro_batch = 7, steps = 1 }
"#;

const THINGS: [&str; 6] = ["mat", "red cat", "small cat", "number", "happy", "sat on a mat"];

fn joust(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_joust")).args(arguments).current_dir(root).output().expect("joust starts")
}

/// Trains with the given settings and returns what was told.
fn train(root: &Path, out: &str, sets: &[&str]) -> String {
    let own = format!("output.dir={out}");
    let mut arguments = vec!["train-reward", "reward.toml", "--set", &own];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    let output = joust(root, &arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{sets:?}: {told}");
    told
}

type Triple = [String; 3];

/// Pairs and contrasts: prompt, chosen, rejected.
fn triples(count: usize, better: &str, worse: &str) -> Vec<Triple> {
    let thing = |i: usize| THINGS[i % THINGS.len()];
    let triple = |i: usize| {
        [
            format!("the cat {i} saw a {}", thing(i)),
            format!(" {better} {}", thing(i + i / 6 + 1)),
            format!(" {worse} {}", thing(i * i + 2)),
        ]
    };
    (0..count).map(triple).collect()
}

fn write(root: &Path, name: &str, triples: &[Triple]) {
    let line = |[p, c, r]: &Triple| format!("{{\"prompt\": \"{p}\", \"chosen\": \"{c}\", \"rejected\": \"{r}\"}}\n");
    fs::write(root.join(name), triples.iter().map(line).collect::<String>()).expect("written");
}

fn bench() -> (tempfile::TempDir, Vec<Triple>) {
    let folder = tempfile::tempdir().expect("a folder");
    tiny_folder(&folder.path().join("base"), 3);
    let pairs = triples(24, "was happy and", "was on a");
    write(folder.path(), "pairs.jsonl", &pairs);
    fs::write(folder.path().join("reward.toml"), REWARD).expect("written");
    (folder, pairs)
}

/// Hidden state of the last token of an answered prompt, each read alone.
fn states(root: &Path, triples: &[Triple], side: usize) -> Vec<Vec<f64>> {
    let _no_grad = tch::no_grad_guard();
    let base = root.join("base");
    let (config, weights) = load(&base).expect("a model");
    let model = Llama::new(&config, &weights).expect("weights are whole");
    let tokenizer = Tokenizer::open(&base).expect("a tokenizer");
    let state = |triple: &Triple| {
        let ids =
            tokenizer.encode_answered(&Prompt::Text(triple[0].clone()), &triple[side].as_str().into()).expect("text");
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let hidden = model.hidden(&Tensor::from_slice(&ids).unsqueeze(0));
        Vec::<f64>::try_from(hidden.get(0).get(ids.len() as i64 - 1).to_kind(Kind::Double)).expect("a vector")
    };
    triples.iter().map(state).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len()).map(|j| rows.iter().map(|row| row[j]).sum::<f64>() / rows.len() as f64).collect()
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn differences(root: &Path, triples: &[Triple]) -> Vec<Vec<f64>> {
    states(root, triples, 1).iter().zip(states(root, triples, 2)).map(|(a, b)| minus(a, &b)).collect()
}

/// Reads the number after `key` in the line that begins with `line`.
fn number(told: &str, line: &str, key: &str) -> f64 {
    let line_found = told.lines().find(|found| found.starts_with(line));
    let number = line_found.and_then(|found| found.split(&format!("{key}=")).nth(1));
    let number = number.and_then(|rest| rest.split(' ').next()).and_then(|number| number.parse().ok());
    assert!(number.is_some(), "no {key} in the line {line} of {told}");
    number.unwrap_or_default()
}

#[test]
fn legend_margins_are_projections_of_states_on_the_direction_of_safety() {
    let (folder, pairs) = bench();
    let root = folder.path();
    let contrasts = triples(9, "sat on the mat and", "saw the number");
    write(root, "safety.jsonl", &contrasts);
    let told = train(root, "safe", &["loss.margin=legend", "data.safety=safety.jsonl"]);

    let v = minus(&mean(&states(root, &contrasts, 1)), &mean(&states(root, &contrasts, 2)));
    let length = dot(&v, &v).sqrt();
    let gaps: Vec<f64> = differences(root, &pairs).iter().map(|d| dot(d, &v) / length).collect();
    let share = gaps.iter().filter(|gap| **gap > 0.0).count() as f64 / gaps.len() as f64;
    assert!((0.1..0.9).contains(&share), "a test that tells nothing: {gaps:?}");
    assert!((number(&told, "margins=24 contrasts=9", "further_from_harm") - share).abs() < 1e-3, "{told}");
    let middle = gaps.iter().sum::<f64>() / 24.0;
    let deviation = (gaps.iter().map(|gap| (gap - middle).powi(2)).sum::<f64>() / 24.0).sqrt();
    // All scores start equal: the first loss is that of the margins alone.
    let loss = gaps.iter().map(|gap| ((gap - middle) / deviation).exp().ln_1p()).sum::<f64>() / 24.0;
    assert!((number(&told, "step=1/1", "loss") - loss).abs() < 2e-4, "{told}, expected {loss}");
    assert!((loss - 2f64.ln()).abs() > 0.05);

    let missing = joust(root, &["train-reward", "reward.toml", "--set", "loss.margin=legend"]);
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(2) && text.contains("write data.safety"), "{text}");
}

#[test]
fn heads_are_components_of_the_pairs_and_a_user_mixes_them() {
    let (folder, pairs) = bench();
    let root = folder.path();
    let told = train(root, "heads", &["loss.components=3"]);
    let (config, weights) = load(&root.join("heads")).expect("a reward model");
    assert_eq!(config.labels, ["component_1", "component_2", "component_3"]);
    let rows = weights.get("score.weight").expect("heads").to_kind(Kind::Double);
    let heads: Vec<Vec<f64>> = (0..3).map(|i| Vec::try_from(rows.get(i)).expect("a row")).collect();
    let differences = differences(root, &pairs);
    let middle = mean(&differences);
    let centred: Vec<Vec<f64>> = differences.iter().map(|d| minus(d, &middle)).collect();
    let total: f64 = centred.iter().map(|d| dot(d, d)).sum::<f64>() / 23.0;
    let mut last = f64::MAX;
    for (i, head) in heads.iter().enumerate() {
        // C·v = λ·v with C the covariance, λ falling from head to head.
        let variance: f64 = centred.iter().map(|d| dot(d, head).powi(2)).sum::<f64>() / 23.0;
        for (j, x) in head.iter().enumerate() {
            let image = centred.iter().map(|d| d[j] * dot(d, head)).sum::<f64>() / 23.0;
            assert!((image - variance * x).abs() < 1e-3 * total, "head {i}");
        }
        assert!((dot(head, head) - 1.0).abs() < 1e-5 && variance <= last && dot(head, &middle) >= 0.0);
        last = variance;
        let label = format!("component_{} ", i + 1);
        assert!((number(&told, &label, "variance") - variance / total).abs() < 2e-3, "{told}");
        let right = differences.iter().filter(|d| dot(d, head) > 0.0).count() as f64 / 24.0;
        assert!((number(&told, &label, "accuracy") - right).abs() < 1e-3, "{told}");
    }

    // A user who prefers what the pairs reject.
    let user: Vec<Triple> = pairs.iter().take(8).map(|[p, c, r]| [p.clone(), r.clone(), c.clone()]).collect();
    write(root, "user.jsonl", &user);
    let sets = ["model.base=heads", "data.train=user.jsonl", "loss.combine=true"];
    let told = train(root, "user", &sets);
    let accuracies =
        heads.iter().map(|head| differences.iter().take(8).filter(|d| dot(d, head) < 0.0).count() as f64 / 8.0);
    let powers: Vec<[f64; 2]> = accuracies.map(|a| [(a / 0.1).exp(), ((1.0 - a) / 0.1).exp()]).collect();
    let all: f64 = powers.iter().flatten().sum();
    let mix: Vec<f64> = powers.iter().map(|[own, other]| (own - other) / all).collect();
    for (i, weight) in mix.iter().enumerate() {
        assert!((number(&told, &format!("component_{} ", i + 1), "weight") - weight).abs() < 1e-3, "{told}");
    }
    let (config, weights) = load(&root.join("user")).expect("a reward model");
    assert_eq!(config.labels.len(), 1);
    let model = Llama::new(&config, &weights).expect("weights are whole");
    let tokenizer = Tokenizer::open(&root.join("user")).expect("a tokenizer");
    let sequences: Vec<Vec<u32>> = user
        .iter()
        .flat_map(|[p, c, r]| [c, r].map(|answer| (p.clone(), answer.clone())))
        .map(|(p, answer)| tokenizer.encode_answered(&Prompt::Text(p), &answer.as_str().into()).expect("text"))
        .collect();
    let scores = Vec::<f32>::try_from(tch::no_grad(|| sequence_scores(&model, &sequences))).expect("scores");
    for (pair, d) in scores.chunks(2).zip(&differences) {
        let expected: f64 = heads.iter().zip(&mix).map(|(head, weight)| -weight * dot(d, head)).sum();
        let found = f64::from(pair[0] - pair[1]);
        assert!((found - expected).abs() < 1e-3 * expected.abs().max(1.0), "{found}, expected {expected}");
    }
}

#[test]
fn heads_that_cannot_be_made_are_refused() {
    let (folder, _) = bench();
    let refused = |sets: &[&str]| {
        let mut arguments = vec!["train-reward", "reward.toml"];
        arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
        let output = joust(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = refused(&["loss.components=24"]);
    assert!(text.contains("components is 24, expected at least 1, and at most the hidden width"), "{text}");
    let text = refused(&["loss.combine=true"]);
    assert!(text.contains("base has no heads to combine; give a folder that loss.components"), "{text}");
    let text = refused(&["loss.combine=true", "loss.components=2"]);
    assert!(text.contains("loss.components takes the place of training"), "{text}");
}
