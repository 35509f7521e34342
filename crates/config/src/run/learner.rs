//! How the policy is updated: `[learner]`, and the optimizer's keys that every kind of training shares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the policy is updated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Learner {
    /// Prompts whose outcomes make one step. Few make noisy steps, many make few of them.
    #[schemars(range(min = 1))]
    pub prompts_per_step: u32,
    /// Examples in one forward and backward pass; the step's gradient does not depend on it. More is faster until memory
    /// runs out.
    #[schemars(range(min = 1))]
    pub micro_batch: u32,
    /// Whether the backward pass computes each layer again instead of keeping what lies in it: memory for the states between layers only, about a third
    /// more operations.
    pub activation_checkpointing: bool,
    /// Processes that share each step, on this machine. More than one pays where cores or devices are left over; each holds all weights,
    /// and its share of masters, moments and gradients.
    #[schemars(range(min = 1, max = 1024))]
    pub ranks: u32,
    /// How often lost ranks are started again, all together, from the last checkpoint, before the run ends.
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub rank_restarts: u64,
    /// Fewest ranks that go on when lost ones cannot be started again; 0 takes `ranks`: the run then ends with an error instead.
    #[schemars(range(max = 1024))]
    pub min_ranks: u32,
    /// Longest wait of ranks for one another in seconds, when they meet and within a step: one that hangs for longer is taken for lost. Below the time of
    /// the slowest micro-batch nothing is trained.
    #[schemars(range(min = 1, max = 86_400))]
    pub rank_timeout_s: u64,
    /// Peak learning rate. Online training starts from TRL's 5e-7, which suits models of a billion parameters; models of a
    /// few million want 1e-5 to 1e-4. Too large and the text falls apart, too small and nothing happens.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Optimizer and schedule.
    #[serde(flatten)]
    pub optim: Optimization,
    /// Passes over the examples of one step. Above 1 later passes are off-policy; 4 is a lot.
    #[schemars(range(min = 1))]
    pub epochs_per_iteration: u32,
    /// Steps between two publications of the policy to the samplers. Above 1 weights and reference move at iteration ends, and a whole
    /// iteration is answered by the policy that it begins with; the papers of `sppo` and `iterative-dpo` train three iterations.
    /// Checkpoints are written at iteration ends only.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub iteration_steps: u64,
    /// Steps between two measurements of what a step does to the policy (`diagnostics/*`), from the first on; 0 never measures. Each costs about
    /// a pass over a micro-batch.
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub diagnose_every: u64,
    /// What becomes of a step whose loss or gradient is not finite.
    pub on_nan: OnNan,
    /// Steps between two checkpoints; 0 writes only the last. A crash loses at most this many steps of work, never data.
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub checkpoint_every: u64,
    /// Checkpoints kept, the best one not counted. 1 leaves nothing to fall back to when the last is damaged.
    #[schemars(range(min = 1))]
    pub keep_checkpoints: u32,
}

impl Default for Learner {
    fn default() -> Self {
        Self {
            prompts_per_step: 32,
            micro_batch: 16,
            activation_checkpointing: false,
            ranks: 1,
            rank_restarts: 3,
            min_ranks: 0,
            rank_timeout_s: 300,
            learning_rate: 5e-7,
            optim: Optimization::default(),
            epochs_per_iteration: 1,
            iteration_steps: 1,
            diagnose_every: 10,
            on_nan: OnNan::default(),
            checkpoint_every: 20,
            keep_checkpoints: 2,
        }
    }
}

/// Optimizer and learning-rate schedule, in Hugging Face's names and with its defaults.
///
/// The peak learning rate is beside it, because its default depends on the kind of training and a flattened table takes
/// its defaults from its own type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optimization {
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Decay of the first moment, of `adamw`.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub adam_beta1: f64,
    /// Decay of the second moment, of `adamw`.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub adam_beta2: f64,
    /// Added to the root of the second moment of `adamw`, so that a weight without gradient is not divided by 0.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub adam_epsilon: f64,
    /// Decoupled weight decay, per unit of learning rate. 0, Hugging Face's default, lets only the loss move the weights.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Shape of the schedule after the warm-up.
    pub lr_scheduler_type: SchedulerType,
    /// Steps of linear warm-up from 0; excludes `warmup_ratio`.
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub warmup_steps: u64,
    /// Share of all steps spent in warm-up; excludes `warmup_steps`.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub warmup_ratio: f64,
    /// Largest global norm of the gradient; a longer one is scaled down to it. 0 never clips.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Optimizer steps of the whole run. Not set: as many as the epochs of the data give. Set, it wins over them.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub steps: Option<u64>,
    /// Threads of tensor work; 0 takes the deployment file's. Sums depend on it, so a deterministic run takes 1 where
    /// nothing is set.
    #[schemars(range(max = 1024))]
    pub threads: u32,
}

impl Default for Optimization {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::default(),
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            lr_scheduler_type: SchedulerType::default(),
            warmup_steps: 0,
            warmup_ratio: 0.0,
            max_grad_norm: 1.0,
            steps: None,
            threads: 0,
        }
    }
}

impl Optimization {
    /// Computes the steps of warm-up of a run of `total` steps; a share is rounded up, as in Hugging Face's trainer.
    pub fn warmup(&self, total: u64) -> u64 {
        if self.warmup_steps > 0 { self.warmup_steps } else { (self.warmup_ratio * total as f64).ceil() as u64 }
    }
}

/// The optimizers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam with decoupled weight decay: 8 bytes a parameter.
    #[default]
    Adamw,
    /// RMSprop as PyTorch has it (decay 0.99, epsilon 1e-8), the optimizer of DPO's and SPPO's own code: 4 bytes a parameter.
    Rmsprop,
    /// Adafactor as PyTorch has it, OAIF's: almost no memory. Its learning rate is a share of each matrix's own size; 1e-2 is PyTorch's.
    Adafactor,
}

/// What becomes of a step whose loss or gradient is not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNan {
    /// The run ends with an error that names the examples; weights and queue are as they were.
    #[default]
    Stop,
    /// The step is left out: its examples count as applied, `steps/skipped` counts it, the log names them.
    Skip,
}

/// Shape of the learning-rate schedule after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerType {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to 0 at the last step.
    #[default]
    Linear,
    /// Falls as half a cosine to 0 at the last step.
    Cosine,
}
