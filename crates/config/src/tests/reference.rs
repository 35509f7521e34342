//! The reference page is that of the code.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    Deployment, RewardFile, RunFile, SftFile, reference_markdown,
    schema::{branches, properties, schema_of},
    tests::{LEAST, run},
    works,
};

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new("../../docs/configuration.md").to_owned();
    let page = reference_markdown();
    if std::env::var_os("JOUST_WRITE_DOCS").is_some() {
        fs::write(&path, &page).expect("writable");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/configuration.md is out of date; run JOUST_WRITE_DOCS=1 cargo test -p joust-config the_page_is_up_to_date"
    );
}

/// Fails for a key that says nothing about itself.
fn documented(path: &str, schema: &Value) {
    for (name, inner) in properties(schema).filter(|(_, inner)| inner.get("const").is_none()) {
        let key = format!("{path}.{name}");
        assert!(inner["description"].as_str().is_some_and(|text| text.len() > 5), "{key} has no meaning");
        documented(&key, inner);
        inner.get("items").into_iter().for_each(|items| documented(&key, items));
    }
    branches(schema).into_iter().for_each(|branch| documented(path, branch));
}

#[test]
fn every_key_of_every_file_says_what_it_means() {
    documented("run", &schema_of::<RunFile>());
    documented("sft", &schema_of::<SftFile>());
    documented("reward", &schema_of::<RewardFile>());
    documented("deployment", &schema_of::<Deployment>());
}

#[test]
fn what_is_said_to_run_is_accepted_and_nothing_else_of_the_choice() {
    let page = reference_markdown();
    for key in ["preset", "feedback.ask", "feedback.label", "pairing.select", "loss.name", "reference.kind"] {
        let choices = page.split(&format!("\n`{key}`:\n\n")).nth(1).expect("listed");
        let listed = choices.lines().take_while(|line| line.starts_with("- `"));
        let mut running = Vec::new();
        for line in listed {
            let name = line.split('`').nth(1).expect("a name");
            // What some choices ask of others.
            let beside: &[&str] = match name {
                "odpo" | "reward_gap" | "reward_gap_kl" | "dove" => &["feedback.ask=score"],
                "sppo" if key == "loss.name" => &["pairing.select=win_rate"],
                "xpo" if key == "loss.name" => &["sampling.players=[\"policy\", \"reference\"]"],
                "nash_md" => &["pairing.select=opponent", "sampling.players=[\"policy\", \"ema\"]"],
                "opponent" => &["loss.name=nash_md", "sampling.players=[\"policy\", \"mixture\"]"],
                "single" => &["loss.name=rloo"],
                "list" => &["loss.name=lipo"],
                "pmpo" => &["pairing.select=list", "sampling.players=[\"policy\", \"reference\"]"],
                "sppo_list" | "list_mle" | "lipo" | "pro" | "d2o" | "raft" => &["pairing.select=list"],
                "kto" | "bco_unpaired" | "dro" => &["pairing.select=single"],
                "none" => &["loss.name=simpo"],
                "rloo" | "grpo" | "reinforce++" | "ppo" if key == "loss.name" => &["pairing.select=single"],
                "win_rate" => &["loss.name=sppo"],
                _ => &[],
            };
            let own = format!("{key}={name}");
            let sets: Vec<&str> = std::iter::once(own.as_str()).chain(beside.iter().copied()).collect();
            let accepted = run(LEAST, &sets).is_ok();
            assert_eq!(accepted, !line.contains("*(not yet)*"), "{key}: {line}");
            running.extend(accepted.then(|| name.to_owned()));
        }
        let Some(mut works) = works::of_key(key) else {
            assert!(!running.is_empty(), "{key} lists nothing");
            continue; // every line was accepted, and none said otherwise
        };
        works.sort();
        running.sort();
        assert_eq!(running, works, "{key}");
    }
}
