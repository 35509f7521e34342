//! What is dumped is what was read, and the hash is of what determines the result.

use std::path::Path;

use joust_core::Player;
use proptest::prelude::*;

use super::{LEAST, WHOLE, run};
use crate::{Resolved, RunFile, dump, resolve, run::PlayerName, schema, works::name_of};

/// Resolves a dump as if it lay in another folder.
fn again(resolved: &Resolved) -> Resolved {
    let text = dump(resolved).expect("plain values");
    resolve(&text, Path::new("/elsewhere/resolved.toml"), &[], &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn the_design_s_run_file_comes_back() {
    let first = run(WHOLE, &[]).expect("valid");
    let second = again(&first);
    assert_eq!(second.run, first.run);
    assert_eq!(second.hash, first.hash);
}

#[test]
fn every_judge_comes_back() {
    let more = r#"
[[judge]]
name = "rm"
kind = "reward_model"
model = "../rm"
[[judge]]
name = "gold"
kind = "oracle"
words = { happy = 2.0, "mr. x" = -0.5 }
noise = 0.5
tie_band = 0.1
failure_rate = 0.25
ask_again = { retries = 0 }
[[judge]]
name = "cycle"
kind = "matrix"
patterns = ["rock", "paper"]
preference = [[0.5, 0.9], [0.1, 0.5]]
[[judge]]
name = "pupil"
kind = "learned"
gold = "gold"
model = "../rm"
budget = 100
[[judge]]
name = "style"
kind = "players"
order = ["styled", "policy"]
"#;
    let first = run(&format!("{LEAST}{more}"), &["feedback.judge=rm"]).expect("valid");
    assert_eq!(again(&first).run, first.run);
    assert_eq!(again(&first).hash, first.hash);
}

#[test]
fn the_hash_is_of_what_determines_the_result() {
    let hash = |sets: &[&str]| run(LEAST, sets).expect("valid").hash;
    let base = hash(&[]);
    assert_eq!(base.len(), 64);
    for same in ["name=other", "output.dir=x", "output.archive=false", "learner.checkpoint_every=1", "loss.beta=0.1"] {
        assert_eq!(hash(&[same]), base, "{same}");
    }
    for other in ["seed=1", "loss.beta=0.2", "data.prompts=b.jsonl", "judge.main.scale=2", "learner.steps=5"] {
        assert_ne!(hash(&[other]), base, "{other}");
    }
    let moved: Resolved = resolve(LEAST, Path::new("/other/place/run.toml"), &[], &[]).expect("valid");
    assert_eq!(moved.hash, base);
    let written_out = hash(&["preset=oaif-dpo"]);
    assert_eq!(written_out, base);
}

#[test]
fn the_schema_names_the_players_of_the_records() {
    let schema = schema::<RunFile>();
    let players = &schema["properties"]["sampling"]["properties"]["players"]["items"];
    let names: Vec<&str> =
        players["oneOf"].as_array().expect("a choice").iter().filter_map(|c| c["const"].as_str()).collect();
    let core = [
        Player::Policy,
        Player::Reference,
        Player::Mixture,
        Player::Ema,
        Player::Past,
        Player::Styled,
        Player::Revised,
    ];
    assert_eq!(names, core.map(|player| name_of(&player)));
    // A player added here or there is a compile error in one of these two.
    let _ = |name: PlayerName| match name {
        PlayerName::Policy | PlayerName::Reference | PlayerName::Mixture | PlayerName::Ema => (),
        PlayerName::Past | PlayerName::Styled | PlayerName::Revised => (),
    };
    let _ = |player: Player| match player {
        Player::Policy | Player::Reference | Player::Mixture | Player::Ema => (),
        Player::Past | Player::Styled | Player::Revised => (),
    };
}

/// Overrides with values all over their ranges.
fn overrides() -> impl Strategy<Value = Vec<String>> {
    let number =
        |key: &'static str, range: std::ops::Range<f64>| range.prop_map(move |value| format!("{key}={value:e}"));
    (
        (0..=i64::MAX as u64).prop_map(|seed| format!("seed={seed}")),
        number("learner.learning_rate", 1e-12..1.0),
        number("sampling.temperature", 1e-6..10.0),
        number("data.eval_fraction", 1e-9..0.999),
        number("judge.main.rules.0.words.happy", -1e9..1e9),
        prop::sample::select(vec!["dpo", "ipo", "ipo_avg", "hinge", "slic_hf"])
            .prop_map(|name| format!("loss.name={name}")),
        (2u32..9).prop_map(|count| format!("sampling.num_generations={count}")),
        any::<bool>().prop_map(|on| format!("deterministic={on}")),
        prop::option::of(1u64..1 << 40)
            .prop_map(|steps| steps.map_or("learner.threads=2".into(), |n| format!("learner.steps={n}"))),
        "[a-zA-Z0-9 \"'\\\\#é]{1,12}".prop_map(|text| format!("data.prompts={}", toml::Value::String(text))),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i, j)| vec![a, b, c, d, e, f, g, h, i, j])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_valid_run_comes_back(overrides in overrides()) {
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let first = run(LEAST, &overrides).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let second = again(&first);
        prop_assert_eq!(&second.run, &first.run);
        prop_assert_eq!(second.hash, first.hash);
    }

    #[test]
    fn no_text_makes_it_panic(key in "[a-z.0-9]{0,20}", value in "\\PC{0,20}") {
        // Refused or accepted: either way an answer comes back.
        let _ = run(WHOLE, &[&format!("{key}={value}")]);
    }

    #[test]
    fn no_file_makes_it_panic(text in "[\\[\\]a-z.=\" 0-9{},\n-]{0,80}") {
        prop_assert!(run(&text, &[]).is_err(), "nothing that short is a run file");
    }
}
