//! PAL end to end: users with opposite tastes, a new one, and a judge that asks one of them.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use joust_core::Prompt;
use joust_data::Tokenizer;
use joust_model::{Llama, load, sequence_ratings};
use joust_testkit::tiny_folder;
use serde_json::Value;

const REWARD: &str = r#"
schema = 1
name = "many"
model = { base = "base", dtype = "float32" }
data = { train = "pairs.jsonl", eval_fraction = 0.0, max_length = 96 }
loss = { prototypes = 2, places = 4 }
learner = { batch_size = 16, micro_batch = 8, steps = 80, learning_rate = 1e-2 }
"#;

const RUN: &str = r#"
schema = 1
name = "aligned"
preset = "oaif-dpo"
policy = { model = "base", dtype = "float32" }
data = { prompts = "pairs.jsonl", eval_fraction = 0.0 }
sampling = { max_new_tokens = 4 }
learner = { steps = 1, prompts_per_step = 4, micro_batch = 2 }
eval = { every = 0 }
output = { dir = "out" }
"#;

/// Runs joust; an error is its text.
fn joust(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_joust")).args(arguments).current_dir(root).output().expect("joust starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(told) } else { Err(told) }
}

fn likes_happy(user: &str) -> bool {
    ["Ann", "Bo", "Eve"].contains(&user)
}

/// One pair as prompt, chosen and rejected.
fn pairs(user: &str, from: usize, count: usize) -> Vec<[String; 3]> {
    let pair = |i: usize| {
        let [better, worse] = if likes_happy(user) { ["happy", "red"] } else { ["red", "happy"] };
        [format!("the small cat number {i}"), format!(" was {better} on a mat"), format!(" was {worse} on a mat")]
    };
    (from..from + count).map(pair).collect()
}

fn write(root: &Path, name: &str, users: &[(&str, usize, usize)]) {
    let line = |user: &str, [prompt, chosen, rejected]: &[String; 3]| {
        format!(
            "{{\"user\": \"{user}\", \"prompt\": \"{prompt}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n"
        )
    };
    let lines = users.iter().flat_map(|(user, from, count)| {
        pairs(user, *from, *count).iter().map(|pair| line(user, pair)).collect::<Vec<_>>()
    });
    fs::write(root.join(name), lines.collect::<String>()).expect("written");
}

/// Shares of the pairs of each user whose chosen answer lies nearer to their point, in plain arithmetic on what the folder holds.
fn accuracies(folder: &Path) -> BTreeMap<String, f64> {
    let people: Value = serde_json::from_slice(&fs::read(folder.join("users.json")).expect("users")).expect("JSON");
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
    };
    let prototypes: Vec<Vec<f64>> = people["prototypes"].as_array().expect("a list").iter().map(numbers).collect();
    let (config, weights) = load(folder).expect("a model");
    let model = Llama::new(&config, &weights).expect("weights are whole");
    let tokenizer = Tokenizer::open(folder).expect("a tokenizer");
    let mut found = BTreeMap::new();
    for (user, shares) in people["users"].as_object().expect("an object") {
        let shares = numbers(shares);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        let point: Vec<f64> =
            (0..4).map(|d| shares.iter().zip(&prototypes).map(|(share, place)| share * place[d]).sum()).collect();
        let far = |prompt: &str, answer: &str| -> f64 {
            let ids = tokenizer.encode_answered(&Prompt::Text(prompt.to_owned()), &answer.into()).expect("text");
            let place = tch::no_grad(|| sequence_ratings(&model, &[ids])).get(0);
            let place = Vec::<f32>::try_from(place).expect("a place");
            place.iter().zip(&point).map(|(x, u)| (f64::from(*x) - u).powi(2)).sum::<f64>().sqrt()
        };
        let own = pairs(user, 100, 10); // prompts that no training saw
        let right = own.iter().filter(|[prompt, chosen, rejected]| far(prompt, chosen) < far(prompt, rejected)).count();
        found.insert(user.clone(), right as f64 / 10.0);
    }
    found
}

#[test]
fn users_with_opposite_tastes_are_told_apart_and_new_ones_join_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    tiny_folder(&root.join("base"), 3);
    fs::write(root.join("reward.toml"), REWARD).expect("written");
    write(root, "pairs.jsonl", &[("Ann", 0, 12), ("Bo", 5, 12), ("Cy", 0, 12), ("Dee", 5, 12)]);
    joust(root, &["train-reward", "reward.toml", "--set", "output.dir=many"]).expect("trained");
    let found = accuracies(&root.join("many"));
    // One reward for all would order half of these right.
    assert!(found.len() == 4 && found.values().all(|share| *share >= 0.9), "{found:?}");

    write(root, "new.jsonl", &[("Eve", 0, 3), ("Flo", 2, 3)]);
    let sets = ["loss.prototypes=0", "loss.new_users=true", "model.base=many", "data.train=new.jsonl"];
    let mut welcome = vec!["train-reward", "reward.toml", "--set", "output.dir=more"];
    welcome.extend(sets.iter().flat_map(|set| ["--set", set]));
    let told = joust(root, &welcome).expect("fitted");
    assert!(told.contains("users=2 steps=80") && told.contains("accuracy=1.000"), "{told}");
    let more = accuracies(&root.join("more"));
    assert!(more.len() == 6 && more.values().all(|share| *share >= 0.9), "{more:?}");
    let weights = |name: &str| fs::read(root.join(name).join("model.safetensors")).expect("weights");
    assert!(weights("many") == weights("more"), "only the users are fitted");

    write(root, "again.jsonl", &[("Ann", 0, 3)]);
    let again =
        joust(root, &[welcome.as_slice(), &["--set", "data.train=again.jsonl", "--set", "output.dir=x"]].concat());
    assert!(again.expect_err("refused").contains("knows the user \"Ann\" already"));
    let plain = joust(root, &[welcome.as_slice(), &["--set", "model.base=base", "--set", "output.dir=x"]].concat());
    assert!(plain.expect_err("refused").contains("base has no prototypes; give a folder that loss.prototypes made"));

    let judged = |more: &str| {
        let judge =
            format!("[[judge]]\nname = \"one\"\nkind = \"reward_model\"\nmodel = \"more\"\nmax_length = 96\n{more}");
        fs::write(root.join("run.toml"), format!("{RUN}{judge}")).expect("written");
        joust(root, &["run", "run.toml"])
    };
    assert!(judged("").expect_err("refused").contains("knows the users Ann, Bo, Cy, Dee, Eve, Flo; write judge.user"));
    assert!(judged("user = \"Gil\"\n").expect_err("refused").contains("user \"Gil\" is not one that its model knows"));
    judged("user = \"Eve\"\n").expect("aligned");
    assert!(root.join("out/policy/model.safetensors").exists());
}
