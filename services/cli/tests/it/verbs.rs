//! The verbs one after the other, as a user would: make a model, train a reward model, align with it, sample, compare.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const SFT: &str = r#"
schema = 1
name = "base"
[model]
dtype = "float32"
new = { hidden_size = 32, intermediate_size = 64, num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, max_position_embeddings = 64 }
[tokenizer]
vocab_size = 300
[data]
train = "corpus.jsonl"
eval_fraction = 0.1
max_length = 48
[learner]
batch_size = 16
steps = 60
learning_rate = 1e-2
"#;

const REWARD: &str = r#"
schema = 1
name = "reward"
[model]
base = "base"
dtype = "float32"
[data]
train = "pairs.jsonl"
eval_fraction = 0.2
max_length = 48
[learner]
batch_size = 16
steps = 60
learning_rate = 3e-3
"#;

const RUN: &str = r#"
schema = 1
name = "aligned"
preset = "oaif-ipo"
[policy]
model = "base"
dtype = "float32"
[data]
prompts = "prompts.jsonl"
epochs = 10
eval_fraction = 0.2
[sampling]
max_new_tokens = 12
[[judge]]
name = "model"
kind = "reward_model"
model = "reward"
max_length = 48
[learner]
prompts_per_step = 8
micro_batch = 4
learning_rate = 1e-3
steps = 6
[eval]
every = 3
prompts = 8
"#;

const NAMES: [&str; 8] = ["Mia", "Tom", "Leo", "Ann", "Sam", "Eva", "Max", "Ida"];
const THINGS: [&str; 5] = ["kite", "ball", "boat", "drum", "book"];

fn joust(root: &Path, arguments: &[&str]) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_joust")).args(arguments).current_dir(root).output().expect("joust starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn write_inputs(root: &Path) {
    let openings = || NAMES.iter().flat_map(|name| THINGS.iter().map(move |thing| format!("{name} had a {thing}.")));
    let corpus = openings().flat_map(|opening| {
        [" It was a good day.", " It was a bad day."]
            .map(|end| format!("{{\"prompt\": \"{opening}\", \"completion\": \"{end}\"}}\n"))
    });
    fs::write(root.join("corpus.jsonl"), corpus.collect::<String>()).expect("written");
    let pair = |opening| {
        format!(
            "{{\"prompt\": \"{opening}\", \"chosen\": \" It was a good day.\", \"rejected\": \" It was a bad day.\"}}\n"
        )
    };
    fs::write(root.join("pairs.jsonl"), openings().map(pair).collect::<String>()).expect("written");
    let prompt = |opening| format!("{{\"prompt\": \"{opening}\"}}\n");
    fs::write(root.join("prompts.jsonl"), openings().map(prompt).collect::<String>()).expect("written");
    for (name, text) in [("sft.toml", SFT), ("reward.toml", REWARD), ("run.toml", RUN)] {
        fs::write(root.join(name), text).expect("written");
    }
}

#[test]
fn a_model_is_made_aligned_and_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_inputs(root);
    joust(root, &["sft", "sft.toml", "--set", "output.dir=base"]);

    let trained = joust(root, &["train-reward", "reward.toml", "--set", "output.dir=reward"]);
    let told = String::from_utf8_lossy(&trained.stderr).into_owned();
    let accuracy =
        told.split("held_out=8 accuracy=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an accuracy");
    assert!(accuracy.parse::<f64>().expect("a number") > 0.9, "good days are told from bad ones: {told}");

    joust(root, &["doctor", "run.toml"]);
    let dry = stdout(&joust(root, &["run", "run.toml", "--dry-run"]));
    assert!(dry.contains("# at most at once") && dry.contains("beta = 1.0"), "{dry}");
    assert!(!root.join("runs").exists(), "a dry run writes nothing");

    joust(root, &["run", "run.toml", "--set", "output.dir=out"]);
    let metrics = fs::read_to_string(root.join("out/metrics.jsonl")).expect("metrics");
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.iter().filter(|line| line["kind"] == "step").count(), 6);
    assert_eq!(lines.iter().filter(|line| line["kind"] == "eval").count(), 2);
    assert!(fs::read_dir(root.join("out/archive")).expect("an archive").count() > 0);

    let sampled = stdout(&joust(root, &["sample", "out/policy", "--prompt", "Mia had a kite.", "-n", "3", "--json"]));
    let answers: Vec<Value> = sampled.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 3);
    for answer in &answers {
        let tokens = answer["token_ids"].as_array().expect("ids").len();
        assert_eq!(answer["logprobs"].as_array().expect("log-probs").len(), tokens);
    }
    best_of_four_and_training_on_it(root);
    checkpoints_are_listed_checked_and_exported(root);
    let compared = stdout(&joust(root, &["eval", "out/policy", "--against", "base", "--run", "run.toml", "--json"]));
    let figures: Value = serde_json::from_str(&compared).expect("JSON");
    assert_eq!(figures["prompts"], 8);
    assert!(figures["win_rate"].as_f64().expect("a rate") >= 0.5, "{figures}");
}

/// The last checkpoint of the run in `out` holds the policy that the run left; a damaged one is named.
fn checkpoints_are_listed_checked_and_exported(root: &Path) {
    assert!(stdout(&joust(root, &["ckpt", "ls", "out"])).starts_with("step        6 "));
    assert!(stdout(&joust(root, &["ckpt", "verify", "out"])).contains("whole"));
    let told = stdout(&joust(root, &["ckpt", "export", "out", "--out", "exported"]));
    assert_eq!(told, "exported step 6 to exported\n");
    let weights = |folder: &str| fs::read(root.join(folder).join("model.safetensors")).expect("weights");
    assert!(weights("exported") == weights("out/policy"));
    assert!(root.join("exported/tokenizer.json").exists());
    let fails = |arguments: &[&str]| -> String {
        let output =
            Command::new(env!("CARGO_BIN_EXE_joust")).args(arguments).current_dir(root).output().expect("joust starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(fails(&["ckpt", "export", "out", "--step", "5", "--out", "other"]).contains("there are 6"));
    assert!(fails(&["ckpt", "export", "out", "--out", "exported"]).contains("exists already"));
    assert!(fails(&["ckpt", "ls", "base"]).contains("holds no checkpoints"));
    let file = root.join("out/checkpoints/checkpoint-6/shard-0.safetensors");
    let bytes = fs::read(&file).expect("a checkpoint");
    fs::write(&file, &bytes[..bytes.len() - 1]).expect("cut");
    assert!(fails(&["ckpt", "verify", "out"]).contains("1 checkpoints are damaged"));
    assert!(fails(&["ckpt", "export", "out", "--out", "other"]).contains("differs from what was written"));
    fs::write(&file, bytes).expect("mended");
}

/// Of four answers the one with the highest score is kept, and what is printed trains a model (rejection-sampling fine-tuning).
fn best_of_four_and_training_on_it(root: &Path) {
    let judge = "[feedback]\nask = \"score\"\n[[judge]]\nname = \"words\"\nkind = \"rule\"\nrules = [{ words = { good = 1.0, bad = -1.0 } }]\n";
    fs::write(root.join("words.toml"), format!("{}{judge}", RUN.split("[[judge]]").next().expect("text")))
        .expect("written");
    let drawn = ["sample", "base", "--prompts", "prompts.jsonl", "-n", "4", "--json"];
    let lines = |args: &[&str]| -> Vec<Value> {
        stdout(&joust(root, args)).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let (all, best) = (lines(&drawn), lines(&[drawn.as_slice(), &["--best", "words.toml"]].concat()));
    assert_eq!(all.len(), 4 * best.len());
    let score = |line: &Value| {
        let says = |word| f64::from(u8::from(line["completion"].as_str().expect("text").contains(word)));
        says("good") - says("bad")
    };
    for (group, best) in all.chunks(4).zip(&best) {
        let highest = group.iter().map(score).fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(best["score"].as_f64(), Some(highest), "{best}");
        let same = |line: &Value| ["token_ids", "prompt", "sample_index"].iter().all(|key| line[key] == best[key]);
        assert!(group.iter().any(|line| same(line) && score(line) == highest), "{best}");
    }
    let mean = |lines: &[Value]| lines.iter().map(score).sum::<f64>() / lines.len() as f64;
    assert!(mean(&best) > mean(&all) + 0.3, "{} of {}", mean(&best), mean(&all));
    fs::write(root.join("best.jsonl"), best.iter().map(|line| format!("{line}\n")).collect::<String>())
        .expect("written");
    let sets = ["--set", "data.train=best.jsonl", "--set", "model={ base = \"base\", dtype = \"float32\" }"];
    let sft = ["sft", "again.toml", "--set", "output.dir=again"];
    fs::write(root.join("again.toml"), SFT.replace("vocab_size = 300", "").replace("[tokenizer]\n", ""))
        .expect("written");
    joust(root, &[sft.as_slice(), &sets].concat());
    let again = ["sample", "again", "--prompts", "prompts.jsonl", "-n", "4", "--json"];
    assert!(mean(&lines(&again)) > mean(&all) + 0.3, "training on the best answers makes them likelier");
}

#[test]
fn attributes_are_rated_and_weighed_by_a_judge() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_inputs(root);
    joust(root, &["sft", "sft.toml", "--set", "output.dir=base"]);
    // Good days are happy, every day is as short as the other; some rows do not rate one of the two.
    let rows = NAMES.iter().flat_map(|name| THINGS.iter().map(move |thing| (name, thing))).enumerate();
    let rated = rows.flat_map(|(i, (name, thing))| {
        [("good", 4), ("bad", 0)].map(|(day, happy)| {
            let length = if i % 3 == 0 { "null" } else { "2" };
            let answer = format!(" It was a {day} day.");
            format!(
                "{{\"prompt\": \"{name} had a {thing}.\", \"completion\": \"{answer}\", \"happiness\": {happy}, \"length\": {length}}}\n"
            )
        })
    });
    fs::write(root.join("rated.jsonl"), rated.collect::<String>()).expect("written");
    let sets = [
        "data.train=rated.jsonl",
        "loss.attributes=[\"happiness\", \"length\"]",
        "output.dir=rater",
        "learner.steps=200",
    ];
    let mut arguments = vec!["train-reward", "reward.toml"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    let told = String::from_utf8_lossy(&joust(root, &arguments).stderr).into_owned();
    for attribute in ["happiness", "length"] {
        let found = told.split(&format!("{attribute}_error=")).nth(1).and_then(|rest| rest.lines().next());
        let error: f64 = found.expect("an error").parse().expect("a number");
        assert!(error < 0.7, "{attribute}: {told}");
    }
    let config: Value = serde_json::from_slice(&fs::read(root.join("rater/config.json")).expect("read")).expect("JSON");
    assert_eq!(config["id2label"], serde_json::json!({ "0": "happiness", "1": "length" }));

    let judge = |attributes: &str| {
        format!(
            "judge=[{{ name = \"model\", kind = \"reward_model\", model = \"rater\", max_length = 48{attributes} }}]"
        )
    };
    let refused = |attributes: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_joust"))
            .args(["run", "run.toml", "--set", &judge(attributes)])
            .current_dir(root)
            .output()
            .expect("joust starts");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("").contains("its model rates happiness, length; write judge.attributes"), "{}", refused(""));
    assert!(refused(", attributes = { joy = 1.0 }").contains("attributes names \"joy\""));
    let weighed = judge(", attributes = { happiness = 1.0, length = -0.5 }");
    joust(root, &["run", "run.toml", "--set", &weighed, "--set", "output.dir=out", "--set", "feedback.ask=score"]);
    assert!(root.join("out/policy/model.safetensors").exists());
}
