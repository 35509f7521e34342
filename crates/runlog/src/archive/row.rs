//! One archived completion.

use std::collections::BTreeMap;

use joust_core::{Judgement, Outcome, Rollout};
use serde::{Deserialize, Serialize};

/// Identity of a row in the archive: position in the stream and sample index.
pub(super) type RowKey = (u64, u32);

/// Rows by identity, in the order in which they are written.
pub(super) type Rows = BTreeMap<RowKey, Row>;

/// One completion with its prompt and what was found about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) position: u64,
    pub(super) epoch: u64,
    pub(super) row: u64,
    pub(super) sample_index: u32,
    pub(super) prompt: String,
    pub(super) completion: String,
    /// The prompt as the policy read it.
    pub(super) prompt_ids: Vec<u32>,
    pub(super) token_ids: Vec<u32>,
    /// log π of each token in nats at temperature 1, under the player that answered.
    pub(super) logprobs: Vec<f32>,
    /// log π(completion) in nats at temperature 1.
    pub(super) logprob_sum: f64,
    pub(super) finish: String,
    pub(super) player: String,
    pub(super) policy_version: u64,
    pub(super) score: Option<f64>,
    pub(super) judgement_status: String,
    /// JSON text; absent when the judgement failed.
    pub(super) judgement_value: Option<String>,
    pub(super) judge: String,
    pub(super) judge_config_hash: String,
    /// What the judge wrote about the completion, if it did.
    pub(super) note: Option<String>,
    pub(super) dropped: Option<String>,
}

/// Returns the text by which serde knows a unit variant.
fn name(variant: &impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(name)) => name,
        other => format!("{other:?}"),
    }
}

impl Row {
    /// Returns the rows of a judged rollout.
    pub(super) fn of(rollout: &Rollout, judgement: &Judgement, outcome: &Outcome) -> Vec<Self> {
        let value = judgement.value.as_ref().and_then(|value| serde_json::to_string(value).ok());
        let prompt = rollout.task.prompt.display();
        let row = |(at, completion): (usize, &joust_core::Completion)| Self {
            position: rollout.task.position,
            epoch: rollout.task.epoch,
            row: rollout.task.row,
            sample_index: completion.sample_index,
            prompt: prompt.clone(),
            completion: completion.text.clone(),
            prompt_ids: rollout.prompt_ids.clone(),
            token_ids: completion.token_ids.clone(),
            logprobs: completion.logprobs.clone(),
            logprob_sum: completion.logprobs.iter().map(|logprob| f64::from(*logprob)).sum(),
            finish: name(&completion.finish),
            player: name(&completion.player),
            policy_version: completion.model.version,
            score: outcome.scores.get(at).copied(),
            judgement_status: name(&judgement.status),
            judgement_value: value.clone(),
            judge: judgement.provenance.judge.clone(),
            judge_config_hash: judgement.provenance.config_hash.clone(),
            note: judgement.notes.get(at).cloned(),
            dropped: outcome.dropped.as_ref().map(name),
        };
        rollout.completions.iter().enumerate().map(row).collect()
    }

    /// Returns the row's identity.
    pub(super) fn key(&self) -> RowKey {
        (self.position, self.sample_index)
    }
}
