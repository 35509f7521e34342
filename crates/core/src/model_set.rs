//! Which weights exist: the model set that the learner publishes and the players that sample from it.

use serde::{Deserialize, Serialize};

/// Identity of published weights (R2): a late writer of an older generation can never be taken for the current one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    /// Generation of the learner group; rises when the group is formed anew.
    pub generation: u64,
    /// Policy version: +1 per publish, 0 is the initial checkpoint.
    pub version: u64,
    /// BLAKE3 of the weights, hexadecimal.
    pub hash: String,
}

/// The weights that a run uses at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSet {
    /// The policy being trained.
    pub policy: ModelRef,
    /// What the policy is held to.
    pub reference: ModelRef,
    /// Exponential moving average of the policy, for players that need it.
    pub ema: Option<ModelRef>,
    /// Earlier policies kept as opponents, oldest first.
    pub past: Vec<ModelRef>,
}

/// Who answers a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Player {
    /// The current policy.
    Policy,
    /// The reference model.
    Reference,
    /// Per-token geometric mixture of policy and reference.
    Mixture,
    /// The averaged policy.
    Ema,
    /// An earlier policy.
    Past,
    /// The current policy, asked with a text before the prompt that training does not see.
    Styled,
    /// The current policy, shown the best of the answers before its own and asked for a better one; training sees the plain prompt.
    Revised,
}
