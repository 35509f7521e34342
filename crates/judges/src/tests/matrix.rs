//! The matrix judge: lookups, answers of no kind, and what it cannot say.

use joust_core::{JudgementStatus, JudgementValue};

use super::{assert_no_stand_in, call, item, json, preference};
use crate::{Ask, Error, Opened, build};

const SETTINGS: &str = r#"{ "kind": "matrix", "name": "cycle", "patterns": ["rock", "(?i)paper", "scissors"],
    "preference": [[0.5, 0.1, 0.9], [0.9, 0.5, 0.2], [0.1, 0.8, 0.5]], "unmatched": 0.25 }"#;

#[tokio::test]
async fn preferences_are_looked_up_by_kind() {
    let judge = build(&json(SETTINGS), &[], &Opened::default()).expect("valid");
    for (first, second, expected) in [
        ("a rock.", "Paper, of course", 0.1),
        ("paper", "my scissors", 0.2),
        ("scissors", "rock and paper", 0.1), // the first kind that matches is the rock
        ("lava", "rock", 0.25),
        ("rock", "lava", 0.75),
        ("lava", "water", 0.5),
        ("rock", "another rock", 0.5),
    ] {
        let judged = judge.judge(&[item(1, Ask::Compare, &[first, second])], &call()).await;
        assert_eq!(preference(&judged[0]), expected, "{first} / {second}");
    }
    let judged = judge.judge(&[item(1, Ask::Rank, &["rock", "paper", "scissors"])], &call()).await;
    let expected = vec![0.5, 0.1, 0.9, 1.0 - 0.1, 0.5, 0.2, 1.0 - 0.9, 1.0 - 0.2, 0.5];
    assert_eq!(judged[0].value, Some(JudgementValue::Matrix(expected)));
}

#[tokio::test]
async fn it_has_no_scores() {
    let judge = build(&json(SETTINGS), &[], &Opened::default()).expect("valid");
    let judged = judge.judge(&[item(1, Ask::Score, &["rock", "paper"])], &call()).await;
    assert_eq!(judged[0].status, JudgementStatus::InvalidInput);
    assert_no_stand_in(&judged[0]);
}

#[test]
fn a_bad_pattern_is_named() {
    let Err(error) = build(&json(&SETTINGS.replace("scissors", "(")), &[], &Opened::default()) else {
        panic!("it compiles")
    };
    assert!(matches!(error, Error::Pattern { rule: 3, .. }), "{error}");
}
