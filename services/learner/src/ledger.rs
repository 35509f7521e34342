//! What was applied: the part of a checkpoint that makes every application happen once.

use std::collections::BTreeMap;

use joust_core::{DropReason, Manifest, ModelRef};
use serde::{Deserialize, Serialize};

/// Counts of what was done, and a hash chain over the ids in the order of their application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Examples applied for the first time.
    pub applied: u64,
    /// Applications of examples that an earlier step had applied.
    pub replayed: u64,
    /// Prompts that gave at least one example.
    pub prompts_trained: u64,
    /// Prompts that gave none, by reason.
    pub prompts_dropped: BTreeMap<DropReason, u64>,
    /// BLAKE3 chain over (step, example ids), hexadecimal: equal iff the same ids were applied in the same order.
    pub chain: String,
}

/// What a checkpoint holds besides weights and optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done: the next step to train, and the position in the manifests.
    pub step: u64,
    /// The published policy.
    pub policy: ModelRef,
    /// Hash of the resolved run file.
    pub settings_hash: String,
    /// What was applied.
    pub ledger: Ledger,
    /// Best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since the best one.
    pub evals_without_gain: u64,
    /// Seconds of training before this process, for the budget.
    pub seconds: f64,
    /// For each checkpoint that stays: the first step whose examples its replay pool holds.
    pub replay_from: BTreeMap<u64, u64>,
}

/// The best evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps done when it was made.
    pub step: u64,
    /// Its win rate in [0, 1].
    pub win_rate: f64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { applied: 0, replayed: 0, prompts_trained: 0, prompts_dropped: BTreeMap::new(), chain: "0".repeat(64) }
    }
}

impl Ledger {
    /// Enters a step: its manifest, and why prompts gave nothing.
    pub(crate) fn enter(&mut self, manifest: &Manifest, trained: u64, dropped: &BTreeMap<DropReason, u64>) {
        let applications: u64 = manifest.micro_batches.iter().map(|batch| batch.len() as u64).sum();
        self.replayed += manifest.replayed.len() as u64;
        self.applied += applications - manifest.replayed.len() as u64;
        self.prompts_trained += trained;
        for (reason, count) in dropped {
            *self.prompts_dropped.entry(*reason).or_default() += count;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.chain.as_bytes()).update(&manifest.step.to_le_bytes());
        for id in manifest.micro_batches.iter().flatten() {
            hasher.update(id.as_bytes());
        }
        self.chain = hasher.finalize().to_hex().to_string();
    }
}
