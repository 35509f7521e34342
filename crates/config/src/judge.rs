//! The judges of a run file: a closed choice of kinds, each with its own keys.
//!
//! What a judge computes lives in `joust-judges`; here are only its settings, their meaning and their ranges.

use std::{collections::BTreeMap, path::PathBuf};

use joust_core::Player;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::PlayerName;

/// One `[[judge]]` entry: who says which of two answers is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JudgeConfig {
    /// Adds up the scores of a short list of rules about the text; needs no model.
    Rule(RuleJudge),
    /// Asks a Hugging Face folder with a scalar head (`LlamaForSequenceClassification`, one label).
    RewardModel(RewardModelJudge),
    /// Knows a hidden utility and errs in planted ways; for tests and demos.
    Oracle(OracleJudge),
    /// Knows what kind each answer is and how often each kind is preferred to each other, cycles included; for games, tests and demos.
    Matrix(MatrixJudge),
    /// A reward model that learns during the run: another judge labels the few pairs that it finds closest, it labels all the rest (D2PO).
    Learned(LearnedJudge),
    /// Prefers some players to others, whatever they say: preferences that are made, not found.
    Players(PlayersJudge),
}

/// A judge made of rules: the score of an answer is the sum over its rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleJudge {
    /// Name that `feedback.judge` and `eval.judge` refer to.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: String,
    /// Log-odds of preference per unit of score: P(a over b) = sigmoid(scale × (score a − score b)). 1 reads scores as
    /// log-odds; near 0 every pair is a tie, and at 100 soft labels are as hard as hard ones.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub scale: f64,
    /// The rules, each a table with one of the keys `pattern`, `words`, `length`, `repetition` or `ends_with`.
    #[schemars(length(min = 1))]
    pub rules: Vec<Rule>,
    /// How often and how long it is asked.
    #[serde(default)]
    pub ask_again: AskAgain,
}

/// One rule; the key that it holds says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Rule {
    /// `{ pattern = "(?i)once upon", score = 1.0, max_count = 1 }`.
    Pattern(PatternRule),
    /// `{ words = { happy = 1.0, sad = -1.0 }, max_count = 3 }`.
    Words(WordsRule),
    /// `{ length = { min = 40, max = 60, unit = "tokens", score = 1.0 } }`.
    Length(LengthRule),
    /// `{ repetition = { ngram = 3, penalty = 2.0 } }`.
    Repetition(RepetitionRule),
    /// `{ ends_with = "[.!?]", score = 1.0 }`.
    EndsWith(EndsWithRule),
}

/// Counts what a regular expression matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatternRule {
    /// Regular expression in the syntax of the `regex` crate, searched anywhere in the answer; `(?i)` ignores case.
    pub pattern: String,
    /// Added for each match that does not overlap another; negative punishes.
    pub score: f64,
    /// Most matches that count. 1, the default, gives nothing for saying it again; a large number invites repetition.
    #[serde(default = "one_count")]
    #[schemars(range(min = 1))]
    pub max_count: u32,
}

/// Weighs words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordsRule {
    /// Score of each word, added for each of its occurrences as a whole word, in any case.
    #[schemars(extend("minProperties" = 1))]
    pub words: BTreeMap<String, f64>,
    /// Most occurrences of one word that count. 1, the default, gives nothing for saying it again.
    #[serde(default = "one_count")]
    #[schemars(range(min = 1))]
    pub max_count: u32,
}

/// Looks at the length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LengthRule {
    /// Which lengths are wanted.
    pub length: LengthRange,
}

/// Wanted lengths and what they are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LengthRange {
    /// Shortest wanted length, in `unit`s. 0 wants no length in particular.
    #[serde(default)]
    pub min: u32,
    /// Longest wanted length, in `unit`s, itself included; at least `min`.
    pub max: u32,
    /// What is counted.
    #[serde(default)]
    pub unit: LengthUnit,
    /// Added when `min <= length <= max`; other lengths add nothing.
    pub score: f64,
}

/// What a length counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Completion tokens, the EOS included iff it was sampled.
    Tokens,
    /// Words: what stands between white space.
    #[default]
    Words,
}

/// Punishes saying the same again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepetitionRule {
    /// What counts as the same and what it costs.
    pub repetition: Repetition,
}

/// Size of the repeated part and its price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repetition {
    /// Words in one n-gram. 1 punishes every second use of a word, also of "the"; above 5 short loops go unseen.
    #[schemars(range(min = 1, max = 16))]
    pub ngram: u32,
    /// Taken off the score, times the share in [0, 1] of n-grams that occurred before in the answer.
    #[schemars(range(min = 0.0))]
    pub penalty: f64,
}

/// Looks at the end of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndsWithRule {
    /// Regular expression that must match right up to the end of the answer; white space at the end is ignored.
    pub ends_with: String,
    /// Added when it does.
    pub score: f64,
}

/// A judge that is a reward model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardModelJudge {
    /// Name that `feedback.judge` and `eval.judge` refer to.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: String,
    /// Hugging Face folder with a scalar head, relative to the run file's folder.
    #[schemars(length(min = 1))]
    pub model: PathBuf,
    /// Longest prompt and answer together, in tokens. What is longer is not judged and counted as invalid input; more than
    /// the model's context is refused when it is loaded.
    #[serde(default = "default_max_length")]
    #[schemars(range(min = 1))]
    pub max_length: u32,
    /// Texts scored at once. More is faster until memory runs out, about in proportion.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Weight of each attribute in the score, by its name, for a model that rates several; those left out count 0.
    #[serde(default)]
    pub attributes: BTreeMap<String, f64>,
    /// Who is asked, of a model that knows users (PAL).
    pub user: Option<String>,
    /// Log-odds of preference per unit of reward; 1 for a model trained by Bradley-Terry, which `joust train-reward` does.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub scale: f64,
    /// How often and how long it is asked.
    #[serde(default)]
    pub ask_again: AskAgain,
}

/// A synthetic annotator: a known utility, seen through planted errors.
///
/// The log-odds that the first shown answer wins are `scale × (u first − u second) + noise + position_bias + length_slope ×
/// (words first − words second)`, with `u` the sum of the weights below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleJudge {
    /// Name that `feedback.judge` and `eval.judge` refer to.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: String,
    /// Utility of each occurrence of a word, as a whole word, in any case.
    #[serde(default)]
    pub words: BTreeMap<String, f64>,
    /// Utility per word of length; the honest wish, where `length_slope` is the error.
    #[serde(default)]
    pub length_weight: f64,
    /// Log-odds of preference per unit of utility.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub scale: f64,
    /// Standard deviation of what is added to the log-odds, or to a score; 0 is exact, above 5 little else is left.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub noise: f64,
    /// Log-odds that the answer shown first gains; negative favours the second.
    #[serde(default)]
    pub position_bias: f64,
    /// Log-odds (or score) that each word of length gains beyond its utility.
    #[serde(default)]
    pub length_slope: f64,
    /// Preferences within this distance of 1/2 are called a tie; 0.5 calls everything a tie.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub tie_band: f64,
    /// Share of the questions that fail; asking again draws anew.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failure_rate: f64,
    /// Whether both orders are asked and pooled, which cancels `position_bias`.
    #[serde(default = "yes")]
    pub both_orders: bool,
    /// Seed of the noise and the failures, together with the run's own.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807u64))]
    pub seed: u64,
    /// How often and how long it is asked.
    #[serde(default)]
    pub ask_again: AskAgain,
}

/// What happens when a judge fails or is slow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AskAgain {
    /// Times a question is asked again after a failure that may pass. 0 counts the first failure; many only delay a dead
    /// judge's report.
    #[schemars(range(min = 0, max = 100))]
    pub retries: u32,
    /// Seconds for one batch of questions, retries included. Too short turns slow answers into dropped prompts.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub timeout_s: f64,
}

impl Default for AskAgain {
    fn default() -> Self {
        Self { retries: 2, timeout_s: 120.0 }
    }
}

/// A judge that is a preference matrix over kinds of answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixJudge {
    /// Name that `feedback.judge` and `eval.judge` refer to.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: String,
    /// Regular expression of each kind, searched anywhere in the answer; an answer is of the first kind that matches.
    #[schemars(length(min = 1))]
    pub patterns: Vec<String>,
    /// Row i, column j: probability that kind i is preferred to kind j. Rows i and j must add up to 1 crosswise, with 0.5 on the
    /// diagonal. Scores cannot say what a cycle says, so `feedback.ask` must not be `score`.
    #[schemars(length(min = 1))]
    pub preference: Vec<Vec<f64>>,
    /// Probability that an answer of no kind is preferred to one of any kind; two of no kind are a tie.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub unmatched: f64,
    /// How often and how long it is asked.
    #[serde(default)]
    pub ask_again: AskAgain,
}

/// A judge that is a reward model and learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LearnedJudge {
    /// Name that `feedback.judge` refers to.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: String,
    /// Name of the judge that labels pairs for it, another `[[judge]]`.
    #[schemars(length(min = 1))]
    pub gold: String,
    /// Hugging Face folder that it begins from, relative to the run file's folder: a reward model, or a language model, whose answers are all
    /// ties until the first lesson.
    #[schemars(length(min = 1))]
    pub model: PathBuf,
    /// Judged prompts between two lessons.
    #[serde(default = "default_every")]
    #[schemars(range(min = 1))]
    pub every: u32,
    /// Pairs that the gold judge labels in each lesson: those of the smallest gap in score.
    #[serde(default = "default_labels")]
    #[schemars(range(min = 1))]
    pub labels: u32,
    /// Labels of the whole run; 0 is any number.
    #[serde(default)]
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub budget: u64,
    /// Passes over a lesson, one update each.
    #[serde(default = "default_lesson_epochs")]
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Learning rate of AdamW.
    #[serde(default = "default_lesson_rate")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Longest prompt and answer together, in tokens; what is longer is not judged and counted as invalid input.
    #[serde(default = "default_max_length")]
    #[schemars(range(min = 1))]
    pub max_length: u32,
    /// Texts scored at once.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Log-odds of preference per unit of reward.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub scale: f64,
    /// How often and how long it is asked.
    #[serde(default)]
    pub ask_again: AskAgain,
}

/// A judge that looks at who answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlayersJudge {
    /// Name that `feedback.judge` refers to.
    #[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: String,
    /// Players, the preferred first; others come after all of them.
    #[schemars(with = "Vec<PlayerName>", length(min = 1))]
    pub order: Vec<Player>,
    /// How often and how long it is asked.
    #[serde(default)]
    pub ask_again: AskAgain,
}

impl JudgeConfig {
    /// Returns the name that the run file refers to.
    pub fn name(&self) -> &str {
        match self {
            Self::Rule(judge) => &judge.name,
            Self::RewardModel(judge) => &judge.name,
            Self::Oracle(judge) => &judge.name,
            Self::Matrix(judge) => &judge.name,
            Self::Learned(judge) => &judge.name,
            Self::Players(judge) => &judge.name,
        }
    }

    /// Returns the model folder that it reads, if it reads one.
    pub fn model_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::RewardModel(judge) => Some(&mut judge.model),
            Self::Learned(judge) => Some(&mut judge.model),
            Self::Rule(_) | Self::Oracle(_) | Self::Matrix(_) | Self::Players(_) => None,
        }
    }

    /// Returns the kind as the run file writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rule(_) => "rule",
            Self::RewardModel(_) => "reward_model",
            Self::Oracle(_) => "oracle",
            Self::Matrix(_) => "matrix",
            Self::Learned(_) => "learned",
            Self::Players(_) => "players",
        }
    }

    /// Returns the log-odds of preference per unit of score.
    pub fn scale(&self) -> f64 {
        match self {
            Self::Rule(judge) => judge.scale,
            Self::RewardModel(judge) => judge.scale,
            Self::Oracle(judge) => judge.scale,
            Self::Matrix(_) | Self::Players(_) => 1.0,
            Self::Learned(judge) => judge.scale,
        }
    }

    /// Returns how often and how long it is asked.
    pub fn ask_again(&self) -> &AskAgain {
        match self {
            Self::Rule(judge) => &judge.ask_again,
            Self::RewardModel(judge) => &judge.ask_again,
            Self::Oracle(judge) => &judge.ask_again,
            Self::Matrix(judge) => &judge.ask_again,
            Self::Learned(judge) => &judge.ask_again,
            Self::Players(judge) => &judge.ask_again,
        }
    }
}

fn one() -> f64 {
    1.0
}

fn one_count() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn default_every() -> u32 {
    256
}

fn default_labels() -> u32 {
    16
}

fn default_lesson_epochs() -> u32 {
    4
}

fn default_lesson_rate() -> f64 {
    1e-4
}

fn default_max_length() -> u32 {
    1024
}

fn default_batch_size() -> u32 {
    16
}
