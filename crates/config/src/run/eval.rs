//! Freshness, evaluation and what is written: `[pipeline]`, `[eval]` and `[output]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far sampling may run ahead of learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Policy versions that a sample may be behind when it is trained. 0 alternates sampling and learning strictly; 1 lets
    /// them overlap; many make the data off-policy.
    #[schemars(range(max = 64))]
    pub max_staleness: u32,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self { max_staleness: 1 }
    }
}

/// Comparing the policy with where it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eval {
    /// Steps between two evaluations; 0 never evaluates.
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub every: u64,
    /// Held-out prompts answered each time. The interval's half-width is about 12 points at 64 and 5 at 400.
    #[schemars(range(min = 1))]
    pub prompts: u32,
    /// Name of the judge; that of `feedback.judge` where nothing is set. Another one tells whether the first is gamed.
    pub judge: String,
    /// Whether the checkpoint with the best win rate is kept beside the last.
    pub keep_best: bool,
    /// When to end early.
    pub stop: Stop,
}

impl Default for Eval {
    fn default() -> Self {
        Self { every: 20, prompts: 64, judge: String::new(), keep_best: true, stop: Stop::default() }
    }
}

/// Rules that end a run before its last step; 0 turns each off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// Largest KL divergence of the policy from the initial policy, in nats per answer. Beyond some tens the text usually
    /// falls apart whatever the judge says.
    #[schemars(range(min = 0.0))]
    pub max_kl: f64,
    /// Evaluations in a row without a better win rate.
    pub patience: u32,
    /// Seconds that the run may take.
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub max_seconds: u64,
}

/// What is written and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// Folder of the run, relative to the current directory; `runs/<name>` where nothing is set.
    pub dir: PathBuf,
    /// Whether all completions and judgements are kept as Parquet.
    pub archive: bool,
    /// Whether texts may stand in logs and spans. Off, because prompts can be private.
    pub capture_content: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self { dir: PathBuf::new(), archive: true, capture_content: false }
    }
}
