//! The files of the offline verbs: `joust sft` and `joust train-reward`.

use std::path::PathBuf;

use joust_core::RunId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigFile, Error,
    resolve::private::Sealed,
    run::{Dtype, OnError, Optimization, Problems},
    works::name_of,
};

/// Supervised fine-tuning, or pre-training of a small model from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftFile {
    /// Version of the file's keys; 1 in this build.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// Name of the run: 1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit.
    #[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: RunId,
    /// Seed of initial weights, split and order.
    #[serde(default)]
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub seed: u64,
    /// Where the weights come from.
    pub model: SftModel,
    /// The tokenizer to train; needed by `model.new`, and by nothing else.
    pub tokenizer: Option<TokenizerSpec>,
    /// The texts.
    pub data: SftData,
    /// How the weights are updated.
    #[serde(default)]
    pub learner: OfflineLearner,
    /// What is written and where.
    #[serde(default)]
    pub output: OfflineOutput,
}

/// A base model, or the shape of a new one: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftModel {
    /// Hugging Face folder to go on from, relative to the file's folder.
    #[schemars(length(min = 1))]
    pub base: Option<PathBuf>,
    /// Shape of a model to begin from random weights.
    pub new: Option<NewModel>,
    /// Type of the saved weights. Training keeps float32 masters either way.
    #[serde(default)]
    pub dtype: Dtype,
}

/// Shape of a new Llama, in the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewModel {
    /// Width of the residual stream; a multiple of twice `num_attention_heads`.
    #[schemars(range(min = 1))]
    pub hidden_size: u32,
    /// Width of the feed-forward layers, usually 8/3 to 4 times `hidden_size`.
    #[schemars(range(min = 1))]
    pub intermediate_size: u32,
    /// Decoder layers.
    #[schemars(range(min = 1))]
    pub num_hidden_layers: u32,
    /// Query heads of each layer.
    #[schemars(range(min = 1))]
    pub num_attention_heads: u32,
    /// Key and value heads of each layer; divides `num_attention_heads`.
    #[schemars(range(min = 1))]
    pub num_key_value_heads: u32,
    /// Longest context, in tokens.
    #[schemars(range(min = 1))]
    pub max_position_embeddings: u32,
    /// Whether the output layer shares the embedding's weights, which saves most of a small model's parameters.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Base of the rotary embedding; larger for longer contexts.
    #[serde(default = "default_rope_theta")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub rope_theta: f64,
}

/// A byte-level BPE tokenizer, trained on the texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSpec {
    /// Tokens, the 256 bytes and the special ones included. Few make long sequences, many make a large embedding.
    #[schemars(range(min = 260))]
    pub vocab_size: u32,
}

/// The texts of supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftData {
    /// JSONL or Parquet with `messages`, `prompt` and `completion`, or `text`, relative to the file's folder.
    #[schemars(length(min = 1))]
    pub train: PathBuf,
    /// Share of the rows held out to measure the loss on.
    #[serde(default = "default_eval_fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub eval_fraction: f64,
    /// Longest sequence, in tokens; what is longer, or longer than the model's context, is left out and counted.
    #[serde(default = "default_max_length")]
    #[schemars(range(min = 2))]
    pub max_length: u32,
    /// Which of the assistant's messages are learned in rows with `messages`. Rows with `prompt` and `completion` learn the whole completion, rows with
    /// `text` all of it, as TRL does.
    #[serde(default)]
    pub loss_on: LossOn,
    /// What a bad line does.
    #[serde(default)]
    pub on_error: OnError,
}

/// Which messages of a conversation are learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// Each of the assistant, as under TRL's `assistant_only_loss`.
    #[default]
    All,
    /// The last of the assistant.
    Last,
}

/// Training a reward model on pairs (Bradley-Terry).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardFile {
    /// Version of the file's keys; 1 in this build.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// Name of the run: 1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit.
    #[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"))]
    pub name: RunId,
    /// Seed of the head's initial weights, split and order.
    #[serde(default)]
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub seed: u64,
    /// Where the weights come from.
    pub model: RewardBase,
    /// The pairs.
    pub data: RewardData,
    /// What is minimised.
    #[serde(default)]
    pub loss: RewardLoss,
    /// How the weights are updated.
    #[serde(default)]
    pub learner: OfflineLearner,
    /// What is written and where.
    #[serde(default)]
    pub output: OfflineOutput,
}

/// The model that gets a scalar head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardBase {
    /// Hugging Face folder, relative to the file's folder; a language model, or a reward model to go on from.
    #[schemars(length(min = 1))]
    pub base: PathBuf,
    /// Type of the saved weights. Training keeps float32 masters either way.
    #[serde(default)]
    pub dtype: Dtype,
}

/// The pairs of a reward model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardData {
    /// JSONL or Parquet with `prompt`, `chosen` and `rejected` (texts or messages), relative to the file's folder.
    #[schemars(length(min = 1))]
    pub train: PathBuf,
    /// JSONL or Parquet like `train`, of `loss.margin = "legend"`: `chosen` refuses what `rejected` gives. The mean difference of their states is the
    /// direction of safety.
    #[schemars(length(min = 1))]
    pub safety: Option<PathBuf>,
    /// Share of the prompts held out to measure the accuracy on.
    #[serde(default = "default_eval_fraction")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub eval_fraction: f64,
    /// Which form the rows have.
    #[serde(default)]
    pub format: DataFormat,
    /// Longest prompt and answer together, in tokens; what is longer, or longer than the model's context, is left out and counted.
    #[serde(default = "default_max_length")]
    #[schemars(range(min = 2))]
    pub max_length: u32,
    /// What a bad line does.
    #[serde(default)]
    pub on_error: OnError,
}

/// Which form the rows of a file of preferences have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// TRL's: `prompt`, `chosen` and `rejected`, or the last two alone, as text or messages (UltraFeedback binarized among them); with `loss.attributes`
    /// `prompt`, `completion` and the attributes.
    #[default]
    Trl,
    /// UltraFeedback: `instruction` and `completions`; the highest `overall_score` against the lowest, their difference as margin.
    Ultrafeedback,
    /// Anthropic HH: `chosen` and `rejected` as dialogues of `Human:` and `Assistant:`.
    Hh,
    /// HelpSteer: `prompt` and `response`; with `loss.attributes` each row, else neighbouring rows of one prompt by `helpfulness`.
    Helpsteer,
    /// OpenAssistant: trees, or their messages; the answers of best and worst rank to each message.
    Oasst,
    /// CodeUltraFeedback: `instruction`, `responses` and `annotations`; the highest mean rating against the lowest.
    CodeUltrafeedback,
}

/// Terms of the Bradley-Terry loss, in TRL's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewardLoss {
    /// Weight of (score chosen + score rejected)², which centres the scores around 0. 0 leaves their level free, which no
    /// pair can tell; 0.01 is usual.
    #[schemars(range(min = 0.0))]
    pub center_rewards_coefficient: f64,
    /// What a column `margin` does, or what takes its place.
    pub margin: MarginUse,
    /// Columns of ratings that are regressed on instead (HelpSteer): the data then has `prompt`, `completion` and a number in each of them, where it
    /// is known.
    pub attributes: Vec<String>,
    /// Heads that take the place of training (DRM): the principal components of the differences between the states of chosen and rejected, with the labels
    /// `component_1` and so on. At most the hidden width, and fewer than the pairs. 0 trains.
    pub components: u32,
    /// Mixes the heads of `model.base`, several labels, into one score, by how well each orders the pairs, in place of training: the pairs are those of one
    /// user, and a few are enough.
    pub combine: bool,
    /// Prototypes of users (PAL): answers are places, and a user prefers what lies nearer to a mixture of the prototypes that is their own. The pairs have a
    /// column `user`. 0 makes one reward for all.
    pub prototypes: u32,
    /// Dimensions of the space of `prototypes`.
    #[schemars(range(min = 1))]
    pub places: u32,
    /// Learning rate of prototypes and mixtures, which begin from nothing while the model does not; `learner` says the rest.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub user_learning_rate: f64,
    /// Fits only the mixtures of users whom `model.base`, a folder that `prototypes` made, does not know, to their pairs: all of them in each of
    /// `learner.steps` (200), with the rest as it is.
    pub new_users: bool,
}

impl Default for RewardLoss {
    fn default() -> Self {
        Self {
            center_rewards_coefficient: 0.0,
            margin: MarginUse::None,
            attributes: Vec::new(),
            components: 0,
            combine: false,
            prototypes: 0,
            places: 16,
            user_learning_rate: 0.05,
            new_users: false,
        }
    }
}

/// What the column `margin` of a pair does. Where it is read, each row must have a number in it, which may be written as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MarginUse {
    /// Nothing.
    #[default]
    None,
    /// Chosen must lead by it (Llama 2).
    Subtract,
    /// It multiplies the pair's loss (HelpSteer2-Preference); pairs with 0 are left out and counted, a negative one is refused.
    Scale,
    /// No column: chosen must lead by how much further from harm it lies than rejected, in standard deviations from the mean pair (Legend). Needs
    /// `data.safety`.
    Legend,
}

/// How the weights of an offline run are updated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OfflineLearner {
    /// Rows of one step.
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Rows in one forward and backward pass; the step's gradient does not depend on it.
    #[schemars(range(min = 1))]
    pub micro_batch: u32,
    /// Passes over the data when `steps` is not set.
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Peak learning rate. 5e-5 is Hugging Face's; a new model of a few million parameters wants 1e-3, a reward model 1e-5.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Optimizer and schedule.
    #[serde(flatten)]
    pub optim: Optimization,
}

impl Default for OfflineLearner {
    fn default() -> Self {
        Self { batch_size: 32, micro_batch: 16, epochs: 1, learning_rate: 5e-5, optim: Optimization::default() }
    }
}

/// What an offline run writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OfflineOutput {
    /// Folder of the model, relative to the current directory; `runs/<name>` where nothing is set.
    pub dir: PathBuf,
}

impl OfflineOutput {
    fn complete(&mut self, name: &RunId) -> Vec<(&'static str, &'static str)> {
        if !self.dir.as_os_str().is_empty() {
            return Vec::new();
        }
        self.dir = PathBuf::from("runs").join(name.as_str());
        vec![("output.dir", "name")]
    }
}

impl SftFile {
    fn check_model(&self, found: &mut Problems<'_>) {
        match (&self.model.base, &self.model.new) {
            (Some(_), Some(_)) => {
                found.conflict("model.new", "a table", "model.base is set as well; write one of the two")
            }
            (None, None) => found.conflict("model", "a table", "write model.base (a folder) or model.new (a shape)"),
            _ => {}
        }
        match (&self.model.new, &self.tokenizer) {
            (Some(_), None) => {
                found.conflict("model.new", "a table", "a new model needs a tokenizer; write tokenizer.vocab_size");
            }
            (None, Some(_)) => {
                found.conflict("tokenizer", "a table", "a base model brings its own tokenizer; remove the section");
            }
            _ => {}
        }
        if let Some(new) = &self.model.new {
            new.check(self.data.max_length, found);
        }
    }
}

impl NewModel {
    fn check(&self, max_length: u32, found: &mut Problems<'_>) {
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        if !self.hidden_size.is_multiple_of(2 * heads) {
            let reason = format!("it must be a multiple of 2 x num_attention_heads = {}", 2 * heads);
            found.conflict("model.new.hidden_size", &self.hidden_size.to_string(), &reason);
        }
        if !heads.is_multiple_of(shared) {
            let reason = format!("it must divide num_attention_heads = {heads}");
            found.conflict("model.new.num_key_value_heads", &shared.to_string(), &reason);
        }
        if max_length > self.max_position_embeddings {
            let reason =
                format!("model.new.max_position_embeddings is {}; lower it to that", self.max_position_embeddings);
            found.conflict("data.max_length", &max_length.to_string(), &reason);
        }
    }
}

impl Sealed for SftFile {}

impl ConfigFile for SftFile {
    const KIND: &'static str = "sft file";
    const ENV_PREFIX: &'static str = "JOUST__";
    const OUTSIDE_HASH: &'static [&'static str] = &["name", "output"];

    fn inputs(&mut self) -> Vec<&mut PathBuf> {
        self.model.base.as_mut().into_iter().chain([&mut self.data.train]).collect()
    }

    fn complete(&mut self, _written: &dyn Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
        self.output.complete(&self.name)
    }

    fn problems(&self, place: &dyn Fn(&str) -> String) -> Vec<Error> {
        let mut found = Problems { place, errors: Vec::new() };
        self.check_model(&mut found);
        self.learner.optim.check(&mut found);
        found.errors
    }
}

impl Sealed for RewardFile {}

impl ConfigFile for RewardFile {
    const KIND: &'static str = "reward file";
    const ENV_PREFIX: &'static str = "JOUST__";
    const OUTSIDE_HASH: &'static [&'static str] = &["name", "output"];

    fn inputs(&mut self) -> Vec<&mut PathBuf> {
        let paths = [&mut self.model.base, &mut self.data.train];
        paths.into_iter().chain(&mut self.data.safety).collect()
    }

    fn complete(&mut self, _written: &dyn Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
        self.output.complete(&self.name)
    }

    fn problems(&self, place: &dyn Fn(&str) -> String) -> Vec<Error> {
        let mut found = Problems { place, errors: Vec::new() };
        self.learner.optim.check(&mut found);
        self.check_loss(&mut found);
        self.check_users(&mut found);
        found.errors
    }
}

impl RewardFile {
    /// Checks that what only a loss of users reads is set for one.
    fn check_users(&self, found: &mut Problems<'_>) {
        let (loss, usual) = (&self.loss, RewardLoss::default());
        if loss.prototypes > 0 || loss.new_users {
            return;
        }
        let reason = "only loss.prototypes and loss.new_users read it; write one of them, or remove it";
        if loss.places != usual.places {
            found.conflict("loss.places", &loss.places.to_string(), reason);
        }
        if loss.user_learning_rate != usual.user_learning_rate {
            found.conflict("loss.user_learning_rate", &loss.user_learning_rate.to_string(), reason);
        }
    }

    /// Checks that the loss is one thing, and has the data that it reads.
    fn check_loss(&self, found: &mut Problems<'_>) {
        let (loss, legend) = (&self.loss, self.loss.margin == MarginUse::Legend);
        let ways = [
            ("loss.attributes", !loss.attributes.is_empty(), "regresses on ratings and compares nothing"),
            ("loss.components", loss.components > 0, "takes the place of training"),
            ("loss.combine", loss.combine, "takes the place of training"),
            ("loss.prototypes", loss.prototypes > 0, "has a loss of its own"),
            ("loss.new_users", loss.new_users, "trains nothing else"),
        ];
        let mut chosen = ways.iter().filter(|(_, set, _)| *set);
        let Some((key, _, what)) = chosen.next() else {
            if legend && self.data.safety.is_none() {
                let reason = "it needs answers that refuse and such as they refuse to give; write data.safety";
                found.conflict("loss.margin", "legend", reason);
            }
            if !legend && self.data.safety.is_some() {
                found.conflict(
                    "data.safety",
                    "set",
                    "only loss.margin = \"legend\" reads it; remove one or write the other",
                );
            }
            return;
        };
        let reason = format!("{key} {what}; write one of the two keys");
        if let Some((other, ..)) = chosen.next() {
            found.conflict(other, "set", &reason);
        }
        if loss.margin != MarginUse::None {
            found.conflict("loss.margin", &name_of(&loss.margin), &reason);
        }
        if loss.center_rewards_coefficient > 0.0 {
            found.conflict("loss.center_rewards_coefficient", &loss.center_rewards_coefficient.to_string(), &reason);
        }
        if self.data.safety.is_some() {
            found.conflict("data.safety", "set", &reason);
        }
    }
}

fn yes() -> bool {
    true
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_eval_fraction() -> f64 {
    0.05
}

fn default_max_length() -> u32 {
    512
}
