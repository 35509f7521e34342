//! The run file: everything that determines a run, and nothing of the machine that it runs on.

use joust_core::RunId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::judge::JudgeConfig;

mod check;
mod choices;
mod complete;
mod data;
mod eval;
mod file;
mod learner;
mod loss;
mod sampling;

pub(crate) use check::Problems;
pub use choices::{
    AnnotateBy, Ask, Filter, KeepBy, Label, LossName, Preset, ReferenceKind, ReplayOrder, Select, Weight,
};
pub use complete::Point;
pub use data::{Data, Dtype, Lora, OnError, PairsFormat, Policy};
pub use eval::{Eval, Output, Pipeline, Stop};
pub use learner::{Learner, OnNan, Optimization, Optimizer, SchedulerType};
pub use loss::{Domain, LOSSES, Loss, LossKey, LossSpec, Reads, Reference};
pub use sampling::{Feedback, Keep, Pairing, RationaleTerm, Replay, Revision, Sampling};

pub(crate) use choices::PlayerName;

/// A run, whole: everything that determines its result, and where it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// Version of the run file's keys; 1 in this build.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// Name of the run: 1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit.
    #[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: RunId,
    /// Fills the five choices; what is written beside it wins.
    pub preset: Option<Preset>,
    /// Seed of everything random in the run.
    #[serde(default)]
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub seed: u64,
    /// Whether the same run file gives the same weights to the bit, also across a crash. Slower: the whole step is one unit
    /// of sampling, judging and learning, and `pipeline.max_staleness` is 0.
    #[serde(default)]
    pub deterministic: bool,
    /// The model that is trained.
    pub policy: Policy,
    /// The prompts.
    pub data: Data,
    /// Who answers, how often and how.
    #[serde(default)]
    pub sampling: Sampling,
    /// What the judge is asked.
    #[serde(default)]
    pub feedback: Feedback,
    /// The judges, each with a `name` and a `kind`.
    #[schemars(length(min = 1))]
    pub judge: Vec<JudgeConfig>,
    /// Which answers are contrasted.
    #[serde(default)]
    pub pairing: Pairing,
    /// What is minimised.
    #[serde(default)]
    pub loss: Loss,
    /// What the policy is held to.
    #[serde(default)]
    pub reference: Reference,
    /// How the policy is updated.
    #[serde(default)]
    pub learner: Learner,
    /// How far sampling may run ahead of learning.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// Comparing the policy with where it began.
    #[serde(default)]
    pub eval: Eval,
    /// What is written and where.
    #[serde(default)]
    pub output: Output,
}

impl RunFile {
    /// Finds a judge by its name.
    pub fn judge_named(&self, name: &str) -> Option<&JudgeConfig> {
        self.judge.iter().find(|judge| judge.name() == name)
    }

    /// Returns the judge of `feedback.judge`.
    pub fn training_judge(&self) -> Option<&JudgeConfig> {
        self.judge_named(&self.feedback.judge)
    }

    /// Returns the judge of `eval.judge`.
    pub fn eval_judge(&self) -> Option<&JudgeConfig> {
        self.judge_named(&self.eval.judge)
    }
}
