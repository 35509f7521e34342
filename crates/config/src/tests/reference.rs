//! The reference page is that of the code.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    Deployment, RewardFile, RunFile, SftFile, reference_markdown,
    schema::{branches, properties, schema_of},
    tests::{
        LEAST,
        bad_input::{changed, message},
        run,
    },
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

/// Every message that the page shows is printed for what it names.
#[test]
fn the_messages_of_the_page_are_those_that_are_printed() {
    let page = include_str!("../reference_head.md");
    let block = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let without_place = |text: &str| {
        let place = text.split_whitespace().find(|word| word.contains("run.toml:")).unwrap_or_default();
        text.replacen(place.trim_end_matches(';'), "PLACE", 1)
    };
    let changes = [
        ("epochs_per_iteration = 1", "beeta = 0.2"),
        ("temperature = 1.0", "temperature = 0"),
        ("prompts_per_step = 32", "prompts_per_step = 32\nranks = 64"),
    ];
    assert_eq!(block.lines().count(), changes.len());
    for (line, (from, to)) in block.lines().zip(changes) {
        let printed = message(&changed(from, to), &[]);
        assert_eq!(without_place(line), without_place(&printed));
    }
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
fn every_listed_choice_is_accepted() {
    let page = reference_markdown();
    for key in ["preset", "feedback.ask", "feedback.label", "pairing.select", "loss.name", "reference.kind"] {
        let choices = page.split(&format!("\n`{key}`:\n\n")).nth(1).expect("listed");
        let listed = choices.lines().take_while(|line| line.starts_with("- `"));
        let mut listed_choices = 0;
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
                "previous" => &["learner.iteration_steps=8", "pipeline.max_staleness=0"],
                "bonbon" => &["sampling.players=[\"reference\"]", "sampling.num_generations=2"],
                "rloo" | "grpo" | "reinforce++" | "ppo" if key == "loss.name" => &["pairing.select=single"],
                "win_rate" => &["loss.name=sppo"],
                _ => &[],
            };
            let own = format!("{key}={name}");
            let sets: Vec<&str> = std::iter::once(own.as_str()).chain(beside.iter().copied()).collect();
            let accepted = run(LEAST, &sets).is_ok();
            assert!(accepted, "{key}: {line}");
            listed_choices += 1;
        }
        assert!(listed_choices > 0, "{key} lists nothing");
    }
}
