//! Who answers, what the judge is asked and which answers meet: `[sampling]`, `[feedback]` and `[pairing]`.

use joust_core::Player;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{AnnotateBy, Ask, Filter, KeepBy, Label, PlayerName, ReplayOrder, Select, Weight};

/// Who answers, how often and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Who gives each answer, one entry an answer; or one entry, which then gives all `num_generations`.
    #[schemars(with = "Vec<PlayerName>", length(min = 1))]
    pub players: Vec<Player>,
    /// Answers to each prompt. More find better pairs and cost in proportion; 1 leaves nothing to compare.
    #[schemars(range(min = 2, max = 1024))]
    pub num_generations: u32,
    /// Answers of each prompt that reach the judge; 0 is all of them. Few save a costly judge and lose some of the best pairs.
    #[schemars(range(max = 1024))]
    pub annotate: u32,
    /// What those answers are chosen by.
    pub annotate_by: AnnotateBy,
    /// Weight in [0, 1] of the reference in the player `mixture`; 0 is the policy, 1 the reference. Nash-MD's paper found 0.125 to
    /// 0.375 best.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mixture_coef: f64,
    /// Share of the averaged policy, the player `ema`, that stays at each step; Nash-EMA's paper tried 0.999 and 0.9995.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub ema_decay: f64,
    /// Text before the prompt, or system message of a chat, for the player `styled`.
    pub style: String,
    /// How the player `revised` is asked.
    pub revision: Revision,
    /// Softmax temperature. Near 0 the answers become identical and teach nothing; above 1.5 they become noise.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Smallest mass of most probable tokens that is kept. 1 keeps all and leaves the policy's own distribution.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub top_p: f64,
    /// Number of most probable tokens that are kept; 0 keeps all.
    pub top_k: u32,
    /// Longest answer, in tokens. Too short truncates answers, which then lack their end; time grows in proportion.
    #[schemars(range(min = 1))]
    pub max_new_tokens: u32,
    /// Taken off the score of an answer that was cut before its EOS, in the judge's unit of score.
    #[schemars(range(min = 0.0))]
    pub missing_eos_penalty: f64,
}

impl Sampling {
    /// Returns how many answers of each prompt are judged.
    pub fn judged(&self) -> u32 {
        if self.annotate == 0 { self.num_generations } else { self.annotate }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            players: vec![Player::Policy; 2],
            num_generations: 2,
            annotate: 0,
            annotate_by: AnnotateBy::default(),
            mixture_coef: 0.125,
            ema_decay: 0.999,
            style: String::new(),
            revision: Revision::default(),
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: 64,
            missing_eos_penalty: 0.0,
        }
    }
}

/// How the player `revised` is asked for a better answer than the best so far, which the training judge chooses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Revision {
    /// Asks the policy for feedback on the best answer; empty revises without feedback.
    pub feedback: String,
    /// Asks for the better answer: a message of a chat; before the prompt, said again, of a text.
    pub request: String,
}

/// What the judge is asked and what becomes of its answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Feedback {
    /// What the judge is asked.
    pub ask: Ask,
    /// What becomes of a probability. Hard labels learn faster from a sure judge, soft ones are right for an unsure one.
    pub label: Label,
    /// Name of the judge; the only `[[judge]]` when there is just one.
    pub judge: String,
    /// Training on the judge's reasons beside its preference.
    pub rationale: RationaleTerm,
}

/// What the judge writes about two answers, as a term of the loss: the policy learns to say why the chosen one is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RationaleTerm {
    /// Factor on the mean negative log-prob of a reason's tokens, γ; 0 trains on none. The authors took 0.001.
    #[schemars(range(min = 0.0))]
    pub weight: f64,
    /// Text that stands between the two answers and the reason.
    pub question: String,
    /// Takes −log σ(γ·log π(reason)) as the authors' code does.
    pub log_sigmoid: bool,
}

impl Default for RationaleTerm {
    fn default() -> Self {
        Self { weight: 0.0, question: "Why is the first better than the second?".into(), log_sigmoid: false }
    }
}

/// Which answers are contrasted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pairing {
    /// Which answers become a pair.
    pub select: Select,
    /// Which pairs are refused, and counted.
    pub filters: Vec<Filter>,
    /// Probability of preference that `select = "rejection"` asks for; RS-DPO's paper takes 0.85. Near 1 few pairs are left.
    #[schemars(range(min = 0.5), extend("exclusiveMaximum" = 1.0))]
    pub threshold: f64,
    /// What each example's loss is multiplied by.
    pub weights: Vec<Weight>,
    /// Share of its weight that an example keeps with each policy version since its answers, for the weight `staleness`.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub staleness_decay: f64,
    /// Which pairs of a step are trained.
    pub keep: Keep,
    /// Training again on examples that were applied before.
    pub replay: Replay,
}

impl Default for Pairing {
    fn default() -> Self {
        Self {
            select: Select::default(),
            filters: vec![Filter::Ties, Filter::Identical],
            threshold: 0.85,
            weights: Vec::new(),
            staleness_decay: 0.9,
            keep: Keep::default(),
            replay: Replay::default(),
        }
    }
}

/// Training on a share of each step's pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// What they are ranked by.
    pub by: KeepBy,
    /// Share that is trained; 1 trains all. The others are judged for nothing, and counted as `pairs/filtered`.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub share: f64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { by: KeepBy::default(), share: 1.0 }
    }
}

/// Replay of applied examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// Share of each step that is replayed. 0 never replays; near 1 the run is almost offline.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub ratio: f64,
    /// Examples kept for replay; the oldest leave first.
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub capacity: u64,
    /// Which of them are drawn.
    pub order: ReplayOrder,
}
