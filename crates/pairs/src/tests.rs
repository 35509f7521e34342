//! Worked cases of pairing, and properties over arbitrary rollouts, judgements and rules.

mod outcome;
mod properties;
mod replay;
mod targets;

use joust_core::{
    Completion, Finish, Judgement, JudgementStatus, JudgementValue, ModelRef, Outcome, Player, Prompt, PromptTask,
    Provenance, Purpose, RecordId, Rollout, SCHEMA, Target,
};

use crate::{Filter, Label, PairingRules, Select};

fn completion(sample_index: u32, token_ids: &[u32], finish: Finish) -> Completion {
    Completion {
        sample_index,
        player: Player::Policy,
        model: ModelRef { generation: 0, version: 3, hash: "m".into() },
        token_ids: token_ids.to_vec(),
        logprobs: vec![-1.0; token_ids.len()],
        text: format!("{token_ids:?}"),
        finish,
    }
}

fn rollout(completions: Vec<Completion>) -> Rollout {
    let task = PromptTask {
        schema: SCHEMA,
        id: RecordId::derive(&[b"task"]),
        position: 11,
        epoch: 0,
        row: 11,
        purpose: Purpose::Train,
        prompt: Prompt::Text("Once".into()),
    };
    Rollout { schema: SCHEMA, id: RecordId::derive(&[b"rollout"]), task, prompt_ids: vec![5, 6], completions }
}

/// K answers that differ and ended.
fn distinct(k: u32) -> Rollout {
    rollout((0..k).map(|i| completion(i, &[i, 99], Finish::Eos)).collect())
}

fn judged(value: JudgementValue) -> Judgement {
    let provenance =
        Provenance { judge: "main".into(), config_hash: "hash".into(), backend: "rule".into(), retries: 0 };
    Judgement { status: JudgementStatus::Ok, detail: None, value: Some(value), notes: Vec::new(), provenance }
}

fn scores(values: &[f64]) -> Judgement {
    judged(JudgementValue::Scores(values.to_vec()))
}

fn rules(select: Select, label: Label) -> PairingRules {
    let filters = vec![Filter::Ties, Filter::Identical];
    PairingRules {
        select,
        filters,
        label,
        missing_eos_penalty: 0.0,
        score_scale: 1.0,
        positions: 12,
        threshold: 0.85,
        rationale: None,
        seed: 7,
    }
}

/// Reads every example as (first token of chosen, first token of rejected, p).
fn pairs(outcome: &Outcome) -> Vec<(u32, u32, f64)> {
    let read = |example: &joust_core::Example| {
        let Target::Pair { p, .. } = example.target else { panic!("no pair") };
        (example.answers[0].token_ids[0], example.answers[1].token_ids[0], p)
    };
    outcome.examples.iter().map(read).collect()
}
