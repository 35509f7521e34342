//! Rules, by hand.

use joust_core::{JudgementStatus, JudgementValue};

use super::{assert_no_stand_in, call, candidate, item, json, preference, provenance, scores};
use crate::{Ask, Candidate, Error, Judge, Rule};

fn judge(rules: &str) -> crate::Result<Rule> {
    match json(&format!(r#"{{ "kind": "rule", "name": "main", "scale": 0.5, "rules": {rules} }}"#)) {
        joust_config::judge::JudgeConfig::Rule(config) => Rule::new(provenance(), &config),
        other => panic!("expected a rule judge, got {other:?}"),
    }
}

fn score(rules: &str, text: &str) -> f64 {
    judge(rules).expect("valid rules").score(&candidate(text))
}

#[test]
fn patterns_count_up_to_their_limit() {
    let rules = r#"[{ "pattern": "(?i)ha", "score": 0.5, "max_count": 3 }]"#;
    assert_eq!([score(rules, "Ha ha"), score(rules, "hahahahaha"), score(rules, "no")], [1.0, 1.5, 0.0]);
    assert_eq!(score(r#"[{ "pattern": "a", "score": -1.0 }]"#, "aaa"), -1.0);
}

#[test]
fn words_are_whole_and_weighed() {
    let rules = r#"[{ "words": { "happy": 1.0, "sad": -2.0 }, "max_count": 2 }]"#;
    assert_eq!(score(rules, "Happy, unhappy, happy! HAPPY? sad"), 0.0);
}

#[test]
fn lengths_are_wanted_inside_a_window() {
    let rules = r#"[{ "length": { "min": 2, "max": 3, "score": 1.5 } }]"#;
    assert_eq!(["one", "one two", "one, two three", "a b c d"].map(|text| score(rules, text)), [0.0, 1.5, 1.5, 0.0]);
    let tokens = judge(r#"[{ "length": { "max": 4, "unit": "tokens", "score": 1.0 } }]"#).expect("valid");
    let of = |token_count| tokens.score(&Candidate { token_count, ..candidate("word") });
    assert_eq!([of(4), of(5)], [1.0, 0.0]);
}

#[test]
fn repetition_costs_its_share() {
    let rules = r#"[{ "repetition": { "ngram": 2, "penalty": 10.0 } }]"#;
    assert!((score(rules, "a b a b a c") + 4.0).abs() < 1e-12);
    assert_eq!(score(rules, "all words differ"), 0.0);
}

#[test]
fn the_ending_is_the_very_end() {
    let rules = r#"[{ "ends_with": "[.!?]|the end", "score": 2.0 }]"#;
    assert_eq!(["Yes.  \n", "the end", "No. More", ""].map(|text| score(rules, text)), [2.0, 2.0, 0.0, 0.0]);
}

#[tokio::test]
async fn every_question_is_answered_from_the_scores() {
    let judge =
        judge(r#"[{ "words": { "happy": 2.0, "sad": -2.0 } }, { "ends_with": "\\.", "score": 1.0 }]"#).expect("valid");
    let texts = ["happy.", "sad.", "happy"];
    let items = [item(1, Ask::Score, &texts), item(2, Ask::Compare, &texts[..2]), item(3, Ask::Rank, &texts)];
    let answers = judge.judge(&items, &call()).await;
    assert_eq!(scores(&answers[0]), [3.0, -1.0, 2.0]);
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    assert!((preference(&answers[1]) - sigma(0.5 * 4.0)).abs() < 1e-15);
    let Some(JudgementValue::Matrix(matrix)) = &answers[2].value else { panic!("expected a matrix") };
    let given = [3.0, -1.0, 2.0];
    for i in 0..3 {
        for j in 0..3 {
            assert!((matrix[3 * i + j] - sigma(0.5 * (given[i] - given[j]))).abs() < 1e-15);
        }
    }
    assert_eq!(answers, judge.judge(&items, &call()).await);
}

#[tokio::test]
async fn a_question_that_does_not_fit_is_an_invalid_input() {
    let judge = judge(r#"[{ "pattern": "a", "score": 1.0 }]"#).expect("valid");
    let items = [item(1, Ask::Compare, &["a"]), item(2, Ask::Rank, &["a"]), item(3, Ask::Score, &[])];
    for answer in judge.judge(&items, &call()).await {
        assert_eq!(answer.status, JudgementStatus::InvalidInput);
        assert_no_stand_in(&answer);
    }
    let overflow = super::rule::judge(r#"[{ "pattern": "a", "score": 1e308, "max_count": 9 }]"#).expect("valid");
    let answer = &overflow.judge(&[item(4, Ask::Score, &["aaaa"])], &call()).await[0];
    assert_eq!(answer.status, JudgementStatus::ParseFailed);
    assert_no_stand_in(answer);
}

#[test]
fn a_bad_pattern_is_named() {
    let rules = |second: &str| format!(r#"[{{ "pattern": "a", "score": 1.0 }}, {{ {second}, "score": 1.0 }}]"#);
    for (second, pattern) in [(r#""pattern": "(oh""#, "(oh"), (r#""ends_with": "a)(b""#, "a)(b")] {
        let error = judge(&rules(second)).err().expect("refused");
        let message = error.to_string();
        assert!(message.starts_with(&format!("judge main, rule 2: pattern {pattern:?} is not")), "{message}");
    }
    let words = r#"[{ "words": { "two words": 1.0 } }]"#;
    assert!(matches!(judge(words).err(), Some(Error::Word { word, .. }) if word == "two words"));
}

#[tokio::test]
async fn notes_say_what_each_rule_found_where_they_are_wanted() {
    let rules = r#"[{ "words": { "happy": 1.0, "sad": -2.0, "and": 0.0 } }, { "pattern": "o+ps", "score": -0.5 },
        { "length": { "min": 3, "max": 9, "score": 1.0 } }, { "ends_with": "[.]", "score": 1.0 }, { "repetition": { "ngram": 1, "penalty": 2.0 } }]"#;
    let judge = judge(rules).expect("valid");
    let note = |text: &str| judge.note(&candidate(text));
    assert_eq!(
        note("Happy and happy, not sad."),
        "says happy sad (-1.0), has 5 words (+1.0), ends as it should (+1.0), repeats itself (-0.4)"
    );
    assert_eq!(note("Oops ooops"), "says \"ops ooops\" (-0.5)");
    assert_eq!(note("well"), "nothing of note");
    let asked = [item(1, Ask::Score, &["well", "Happy"])];
    assert!(judge.judge(&asked, &call()).await[0].notes.is_empty());
    let noted = judge.judge(&asked, &crate::CallContext { notes: true, ..call() }).await;
    assert_eq!(noted[0].notes, ["nothing of note", "says happy (+1.0)"]);
}
