//! What is trained and on which prompts: `[policy]` and `[data]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The model that is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Hugging Face folder of the checkpoint that the run begins with, relative to the run file's folder; of a PEFT folder without
    /// `policy.lora` the adapter is merged into its base first.
    #[schemars(length(min = 1))]
    pub model: PathBuf,
    /// Revision of a hub id; folders have none.
    pub revision: Option<String>,
    /// Type that the policy computes and is saved in. The learner keeps float32 masters either way. bfloat16 halves the memory of weights
    /// and samples faster; on a CPU without AMX it trains slower than float32, which is also what numbers are compared in.
    #[serde(default)]
    pub dtype: Dtype,
    /// Trains low-rank adapters instead of all weights (LoRA, <https://arxiv.org/abs/2106.09685>). The base is in memory once for policy and
    /// reference; only adapters have masters, gradients and an optimizer's memory, and only they are published and saved. The critic of
    /// `ppo` and `dro` stays a model of its own, trained whole.
    pub lora: Option<Lora>,
}

/// Type of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 16 bits with the range of float32.
    #[default]
    Bfloat16,
    /// 32 bits.
    Float32,
}

/// Low-rank adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Rank of each adapter. Small ranks learn less, large ones save nothing.
    #[schemars(range(min = 1))]
    pub rank: u32,
    /// Adapters are scaled by alpha / rank.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub alpha: f64,
    /// Linear layers that get an adapter, by the end of their name in the checkpoint (for example `q_proj`), or `all-linear`. A name that
    /// matches none is refused with the names that there are.
    #[schemars(length(min = 1))]
    pub targets: Vec<String>,
    /// Share of an adapter's inputs that is dropped in training, by masks drawn from the seed, the step and the micro-batch. The default 0
    /// keeps the policy's log-probs exact, which losses that compare them with those of the sampler need.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub dropout: f64,
    /// PEFT folder of an adapter to go on from, relative to the run file's folder; rank, alpha and targets must be its own. It is then part
    /// of what `reference.kind = "initial"` means. Without it A is drawn from the seed and B is zero, so that the run begins as the base.
    #[schemars(length(min = 1))]
    pub init: Option<PathBuf>,
    /// Whether `policy/` and `best/` are written as whole Hugging Face folders with the adapter merged in, not as PEFT folders.
    #[serde(default)]
    pub merge: bool,
}

/// The prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// JSONL or Parquet file with a column `prompt` (text or messages) or `messages`, relative to the run file's folder. Needed unless
    /// `pairs` takes every place.
    #[schemars(length(min = 1))]
    pub prompts: Option<PathBuf>,
    /// File of given preferences, rankings or single answers that train as they are, without being answered or judged, relative to the run
    /// file's folder.
    #[schemars(length(min = 1))]
    pub pairs: Option<PathBuf>,
    /// Which form the rows of `pairs` have.
    #[serde(default)]
    pub pairs_format: PairsFormat,
    /// Share of a step's places that rows of `pairs` take, rounded to whole places; prompts take the rest. At 1 nothing is sampled.
    #[serde(default = "whole")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub pairs_share: f64,
    /// Whether each epoch has an order of its own, drawn from the seed. Without it sorted files train in their order.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Passes over the prompts when `learner.steps` is not set; a set `learner.steps` wins, as in TRL.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Share of the prompts held out for evaluation, split by prompt so that none is in both parts. The default 0.05 costs
    /// little; too small and the win rate's interval is wide. 0 when `eval_prompts` names a file.
    #[serde(default = "default_eval_fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub eval_fraction: f64,
    /// File of held-out prompts instead of a share, relative to the run file's folder.
    #[schemars(length(min = 1))]
    pub eval_prompts: Option<PathBuf>,
    /// What a bad line does.
    #[serde(default)]
    pub on_error: OnError,
}

/// Which form the rows of `data.pairs` have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairsFormat {
    /// TRL's preferences: `prompt`, `chosen` and `rejected`, or the last two alone, as text or messages (UltraFeedback binarized among them).
    #[default]
    Trl,
    /// Single answers: `prompt`, `completion` and `label` (true or false), for losses on single answers.
    Unpaired,
    /// Rankings: `prompt` and `completions`, a list, best first.
    Ranked,
    /// UltraFeedback: `instruction` and `completions`; the highest `overall_score` against the lowest.
    Ultrafeedback,
    /// Anthropic HH: `chosen` and `rejected` as dialogues of `Human:` and `Assistant:`.
    Hh,
    /// HelpSteer: `prompt` and `response`; neighbouring rows of one prompt by `helpfulness`.
    Helpsteer,
    /// OpenAssistant: trees, or their messages; the answers of best and worst rank to each message.
    Oasst,
    /// CodeUltraFeedback: `instruction`, `responses` and `annotations`; the highest mean rating against the lowest.
    CodeUltrafeedback,
}

impl Data {
    /// Returns how many of a step's places rows of `pairs` take.
    pub fn given_per_step(&self, prompts_per_step: u64) -> u64 {
        if self.pairs.is_none() {
            return 0;
        }
        ((prompts_per_step as f64 * self.pairs_share).round() as u64).min(prompts_per_step)
    }
}

/// What a bad line of a data file does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Ends the run with the line's number.
    #[default]
    Fail,
    /// Leaves the line out and counts it.
    Skip,
}

fn yes() -> bool {
    true
}

fn whole() -> f64 {
    1.0
}

fn one() -> u32 {
    1
}

fn default_eval_fraction() -> f64 {
    0.05
}
