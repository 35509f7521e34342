//! From settings to judges.

use std::{collections::HashMap, sync::Arc};

use joust_core::{JudgementStatus, Prompt};

use super::{assert_no_stand_in, call, item, json, scores};
use crate::{Ask, Error, Opened, Scorer, build, config_hash};

const RULE: &str = r#"{ "kind": "rule", "name": "main", "rules": [{ "pattern": "a", "score": 1.5 }] }"#;

#[test]
fn hashes_name_the_settings() {
    let hash = config_hash(&json(RULE));
    let canonical = concat!(
        r#"{"ask_again":{"retries":2,"timeout_s":120.0},"kind":"rule","name":"main","#,
        r#""rules":[{"max_count":1,"pattern":"a","score":1.5}],"scale":1.0}"#
    );
    assert_eq!(hash, blake3::hash(canonical.as_bytes()).to_hex().to_string());
    assert_ne!(hash, config_hash(&json(&RULE.replace("1.5", "1.25"))));
}

#[tokio::test]
async fn kinds_answer_under_their_name() {
    struct Ones;
    impl Scorer for Ones {
        fn score(&self, texts: Vec<(Prompt, String)>) -> Result<Vec<Option<f64>>, String> {
            Ok(vec![Some(1.0); texts.len()])
        }
    }
    let scorers = HashMap::from([("rm".to_owned(), Arc::new(Ones) as Arc<dyn Scorer>)]);
    let opened = Opened { scorers, ..Opened::default() };
    let oracle = r#"{ "kind": "oracle", "name": "truth", "words": { "a": 1.0 } }"#;
    let reward = r#"{ "kind": "reward_model", "name": "rm", "model": "rm" }"#;
    for (text, name, kind) in [(RULE, "main", "rule"), (oracle, "truth", "oracle"), (reward, "rm", "reward_model")] {
        let config = json(text);
        let judge = build(&config, &[], &opened).expect("valid settings");
        let answer = &judge.judge(&[item(1, Ask::Score, &["a"])], &call()).await[0];
        assert_eq!((judge.name(), judge.config_hash()), (name, config_hash(&config).as_str()));
        assert_eq!((answer.provenance.judge.as_str(), answer.provenance.backend.as_str()), (name, kind));
        assert_eq!(answer.provenance.config_hash, judge.config_hash());
        assert_eq!(scores(answer).len(), 1);
    }
}

#[test]
fn what_cannot_be_built_is_named() {
    let reward = json(r#"{ "kind": "reward_model", "name": "rm", "model": "models/rm" }"#);
    let message = build(&reward, &[], &Opened::default()).err().expect("refused").to_string();
    assert_eq!(message, "judge rm: reward model models/rm is not loaded; give its scorer under the judge's name");
    let bad = json(&RULE.replace("\"a\"", "\"(a\""));
    assert!(matches!(build(&bad, &[], &Opened::default()), Err(Error::Pattern { rule: 1, .. })));
}

#[tokio::test]
async fn planted_failures_are_asked_again_and_counted() {
    let oracle = |retries: u32| {
        let text = format!(
            r#"{{ "kind": "oracle", "name": "main", "words": {{ "a": 1.0 }}, "failure_rate": 0.3,
                 "ask_again": {{ "retries": {retries}, "timeout_s": 60.0 }} }}"#
        );
        build(&json(&text), &[], &Opened::default()).expect("valid settings")
    };
    let items: Vec<_> = (0..2000).map(|n| item(n, Ask::Compare, &["a", "b"])).collect();
    let once = oracle(0).judge(&items, &call()).await;
    let thrice = oracle(2).judge(&items, &call()).await;
    let failed = |answers: &[joust_core::Judgement]| answers.iter().filter(|a| a.status != JudgementStatus::Ok).count();
    // 0.3 and 0.3³ of 2000: 600 ± 20 and 54 ± 7.
    assert!((520..680).contains(&failed(&once)), "{}", failed(&once));
    assert!((25..85).contains(&failed(&thrice)), "{}", failed(&thrice));
    for (first, last) in once.iter().zip(&thrice) {
        assert_no_stand_in(last);
        let retried = last.provenance.retries > 0;
        assert_eq!(retried, first.status != JudgementStatus::Ok);
        assert!(last.status == JudgementStatus::Ok || last.provenance.retries == 2);
    }
}
