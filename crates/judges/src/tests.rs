//! Judges against what is known about them, and the rule that a failed judgement never carries a value.

mod build;
mod learned;
mod matrix;
mod oracle;
mod players;
mod retry;
mod reward_model;
mod rule;

use std::time::Duration;

use joust_config::judge::{AskAgain, JudgeConfig, OracleJudge};
use joust_core::{Judgement, JudgementStatus, JudgementValue, Player, Prompt, Provenance, RecordId};
use tokio::time::Instant;

use crate::{Ask, CallContext, Candidate, JudgeItem};

fn candidate(text: &str) -> Candidate {
    let player = Player::Policy;
    Candidate { player, text: text.to_owned(), token_count: text.split_whitespace().count() + 1, truncated: false }
}

fn item(n: u64, ask: Ask, texts: &[&str]) -> JudgeItem {
    JudgeItem {
        id: RecordId::derive(&[&n.to_le_bytes()]),
        ask,
        prompt: Prompt::Text("Once".into()),
        candidates: texts.iter().map(|text| candidate(text)).collect(),
    }
}

fn call() -> CallContext {
    CallContext::new(7, Instant::now() + Duration::from_secs(60))
}

fn provenance() -> Provenance {
    Provenance { judge: "main".into(), config_hash: "hash".into(), backend: "test".into(), retries: 0 }
}

fn scores(judgement: &Judgement) -> Vec<f64> {
    match &judgement.value {
        Some(JudgementValue::Scores(scores)) => scores.clone(),
        other => panic!("expected scores, got {other:?} ({:?})", judgement.detail),
    }
}

fn preference(judgement: &Judgement) -> f64 {
    match &judgement.value {
        Some(JudgementValue::Preference(p)) => *p,
        other => panic!("expected a preference, got {other:?} ({:?})", judgement.detail),
    }
}

/// Asserts R3: a value iff the status is OK, and a reason iff it is not.
fn assert_no_stand_in(judgement: &Judgement) {
    let ok = judgement.status == JudgementStatus::Ok;
    assert_eq!((judgement.value.is_some(), judgement.detail.is_some()), (ok, !ok), "{judgement:?}");
}

fn oracle_config() -> OracleJudge {
    let text = r#"{ "name": "main", "words": { "happy": 1.0, "sad": -1.0 } }"#;
    serde_json::from_str(text).expect("valid settings")
}

fn no_retry() -> AskAgain {
    AskAgain { retries: 0, timeout_s: 60.0 }
}

fn json(text: &str) -> JudgeConfig {
    serde_json::from_str(text).expect("valid settings")
}
