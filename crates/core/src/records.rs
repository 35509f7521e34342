//! The records that the queue carries, the same in memory, on the wire and on disk, each with a schema version.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, ModelRef, Player, Prompt, RecordId, Result};

/// Schema version written into every record by this build.
pub const SCHEMA: u16 = 1;

/// Why a prompt is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Its outcome trains the policy.
    Train,
    /// Its outcome becomes a metric and never an example.
    Eval,
    /// A user asked for it through a public call.
    ByHand,
}

/// One prompt to answer, at its place in the stream of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptTask {
    /// Schema version.
    pub schema: u16,
    /// Derived from (run, purpose, position).
    pub id: RecordId,
    /// Position in the stream: step = position / prompts_per_step.
    pub position: u64,
    /// Pass over the data set, from 0.
    pub epoch: u64,
    /// Row in the prompt file, from 0; of a prompt that a user added to the run its place behind them, in the order in which they were added.
    pub row: u64,
    /// Why it is answered.
    pub purpose: Purpose,
    /// What is asked.
    pub prompt: Prompt,
}

/// How a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end-of-sequence token was sampled; it is the last of `token_ids`.
    Eos,
    /// `max_new_tokens` or the context length was reached: truncated.
    Length,
}

/// One sampled answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Which of the K answers, from 0.
    pub sample_index: u32,
    /// Who answered.
    pub player: Player,
    /// Weights that sampled its oldest token; of a mixture the policy's.
    pub model: ModelRef,
    /// Sampled ids, the EOS included iff it was sampled.
    pub token_ids: Vec<u32>,
    /// Log-prob of each token in nats at temperature 1 under the player's distribution; for all but the mixture that of `model`.
    pub logprobs: Vec<f32>,
    /// Decoded text without special tokens: what a judge sees.
    pub text: String,
    /// How it ended.
    pub finish: Finish,
}

/// A prompt with its K answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Schema version.
    pub schema: u16,
    /// Derived from (task id, model versions).
    pub id: RecordId,
    /// The prompt.
    pub task: PromptTask,
    /// The prompt as the policy read it.
    pub prompt_ids: Vec<u32>,
    /// The answers, by `sample_index`.
    pub completions: Vec<Completion>,
}

/// Whether a judgement can be used (R3): only [`JudgementStatus::Ok`] becomes an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgementStatus {
    /// The value can be trusted as far as the judge can.
    Ok,
    /// The judge answered something that is not a verdict.
    ParseFailed,
    /// The judge declined to answer.
    Refused,
    /// No answer before the deadline.
    Deadline,
    /// The judge or its transport failed.
    Unavailable,
    /// The input cannot be judged (for example longer than the judge's context).
    InvalidInput,
}

impl JudgementStatus {
    /// Returns its name, as records and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ParseFailed => "parse_failed",
            Self::Refused => "refused",
            Self::Deadline => "deadline",
            Self::Unavailable => "unavailable",
            Self::InvalidInput => "invalid_input",
        }
    }
}

/// What a judge found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgementValue {
    /// One number per candidate, higher is better; no unit.
    Scores(Vec<f64>),
    /// Probability in [0, 1] that the first of two candidates is preferred, all orders pooled.
    Preference(f64),
    /// Row-major K x K matrix of P(i preferred to j), `P_ii = 1/2`, `P_ij + P_ji = 1`.
    Matrix(Vec<f64>),
}

/// Where a judgement comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name of the judge in the run file.
    pub judge: String,
    /// BLAKE3 of the judge's resolved configuration, hexadecimal.
    pub config_hash: String,
    /// Backend kind, for example `rule`.
    pub backend: String,
    /// Times the judge was asked again before this answer.
    pub retries: u32,
}

/// One judgement with its status; there is no numeric stand-in for a failed one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Whether `value` can be used.
    pub status: JudgementStatus,
    /// What went wrong, when the status is not OK.
    pub detail: Option<String>,
    /// Present iff the status is OK.
    pub value: Option<JudgementValue>,
    /// What the judge writes about each candidate, in their order; empty where it was not asked to or has nothing to say.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Who said so.
    pub provenance: Provenance,
}

/// Why a prompt gave no example; counted by reason, never silent (R4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The judge preferred none of the answers.
    Tie,
    /// The contrasted answers hold the same tokens.
    Identical,
    /// The judgement failed after its retries.
    JudgementFailed,
    /// The work was redelivered too often and went to the dead letters.
    DeadLetter,
    /// Its answers came from a policy older than pipeline.max_staleness allows.
    Stale,
    /// A filter of the run file refused it.
    Filtered,
    /// The prompt cannot be answered (for example longer than the context).
    InvalidPrompt,
}

impl DropReason {
    /// Returns its name, as records and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tie => "tie",
            Self::Identical => "identical",
            Self::JudgementFailed => "judgement_failed",
            Self::DeadLetter => "dead_letter",
            Self::Stale => "stale",
            Self::Filtered => "filtered",
            Self::InvalidPrompt => "invalid_prompt",
        }
    }
}

/// Where an example's preference comes from; human and offline ones are exempt from the staleness bound (R5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExampleSource {
    /// Sampled and judged in this run.
    Online,
    /// Read from a file.
    Offline,
    /// Labelled by people.
    Human,
}

/// One answer as the learner needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Who answered.
    pub player: Player,
    /// Completion ids, the EOS included iff it was sampled.
    pub token_ids: Vec<u32>,
    /// Behaviour log-probs in nats at temperature 1, one per token; empty for offline answers.
    pub behavior_logprobs: Vec<f32>,
    /// How it ended.
    pub finish: Finish,
    /// The judge's score, when it gave one.
    pub score: Option<f64>,
}

/// What the loss is told about an example's answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// `answers[0]` is chosen and `answers[1]` rejected with probability `p` in [0, 1]: 1 for hard labels.
    Pair {
        /// Probability that `answers[0]` is the better one.
        p: f64,
        /// Mean probability of each to beat the prompt's K answers, itself counted as one half; set by pairing by win rate.
        win_rates: Option<[f64; 2]>,
    },
    /// `answers` holds the policy's answer alone; those of its opponents are not trained.
    Opponent {
        /// Mean probability that it is preferred to the opponents' answers, in [0, 1].
        p: f64,
    },
    /// `answers` holds the prompt's answers together, with their scores where the judge gave any.
    Group {
        /// Mean probability of each to beat all of the prompt's answers, itself counted as one half.
        win_rates: Vec<f64>,
    },
}

/// Why one answer is better than the other, as the judge wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rationale {
    /// The prompt with both answers, the better one first, and the question.
    pub prompt: Prompt,
    /// The reason.
    pub text: String,
}

/// One unit of training: a prompt, its contrasted answers and what is known about them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Derived from (rollout id, sample indices, judge hash).
    pub id: RecordId,
    /// The prompt as the policy read it.
    pub prompt_ids: Vec<u32>,
    /// The answers, in the order that `target` names.
    pub answers: Vec<Answer>,
    /// What the loss is told.
    pub target: Target,
    /// Why the first of two answers is the better one, where the run trains on reasons and the judge wrote one.
    #[serde(default)]
    pub rationale: Option<Rationale>,
    /// Factor on the example's loss; 1 unless a weighting says otherwise.
    pub weight: f64,
    /// Policy version of the oldest token of its answers.
    pub policy_version: u64,
    /// Where the preference comes from.
    pub source: ExampleSource,
    /// Judge configuration that produced the target.
    pub judge_hash: String,
}

impl Example {
    /// Returns how many versions before `version` its answers were sampled; 0 where no version of the policy gave any, which no
    /// staleness bounds (R5): answers of the reference, of people, of a file.
    pub fn age(&self, version: u64) -> u64 {
        let of_policy = |answer: &Answer| {
            matches!(answer.player, Player::Policy | Player::Mixture | Player::Styled | Player::Revised)
        };
        let bounded = self.source == ExampleSource::Online && self.answers.iter().any(of_policy);
        if bounded { version.saturating_sub(self.policy_version) } else { 0 }
    }
}

/// What became of one prompt: its examples, or the counted reason why there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Schema version.
    pub schema: u16,
    /// Derived from (task id, judge hash).
    pub id: RecordId,
    /// Position in the stream.
    pub position: u64,
    /// Why the prompt was answered.
    pub purpose: Purpose,
    /// Examples in order; empty iff `dropped` is set.
    pub examples: Vec<Example>,
    /// Why there are no examples.
    pub dropped: Option<DropReason>,
    /// Pairs left out by reason while others of the same prompt were kept.
    pub left_out: Vec<(DropReason, u32)>,
    /// Score of every judged answer after penalties, in their order; empty when the judge gave none.
    pub scores: Vec<f64>,
    /// Share of the answers that ended in EOS, in [0, 1].
    pub eos_share: f64,
    /// Mean completion length in tokens.
    pub mean_tokens: f64,
}

impl Outcome {
    /// Wraps an example that no prompt of the run gave: put by a script, or preferred by a person.
    pub fn by_hand(example: Example) -> Self {
        Self {
            schema: SCHEMA,
            id: RecordId::derive(&[b"by hand", example.id.as_bytes()]),
            // Behind all prompts.
            position: u64::MAX,
            purpose: Purpose::ByHand,
            examples: vec![example],
            dropped: None,
            left_out: Vec::new(),
            scores: Vec::new(),
            eos_share: 0.0,
            mean_tokens: 0.0,
        }
    }

    /// Returns whether people gave its examples, so that none of the run's prompts stands behind it.
    pub fn is_of_people(&self) -> bool {
        self.examples.first().is_some_and(|example| example.source == ExampleSource::Human)
    }
}

/// The plan of one step, durable before the step begins (R2): what is trained, in which order and with which seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Schema version.
    pub schema: u16,
    /// Optimizer step, from 0.
    pub step: u64,
    /// Pass over this step's examples, from 0.
    pub epoch: u64,
    /// Ordered example ids, cut into micro-batches.
    pub micro_batches: Vec<Vec<RecordId>>,
    /// Ids among them that an earlier step already applied (replay), counted apart.
    pub replayed: Vec<RecordId>,
    /// Version of the reference that the examples are held to.
    pub reference_version: u64,
    /// Seed of the step.
    pub seed: u64,
    /// BLAKE3 of the resolved run file, hexadecimal.
    pub settings_hash: String,
}

/// Encodes a record as MessagePack with field names, so that a reader of another version can tell what it holds.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(record).expect("records hold only plain data, which always encodes")
}

/// Decodes a record and checks its schema version, where it carries one.
///
/// # Errors
/// [`Error::Decode`] for bytes that are not a `T`, [`Error::Schema`] for a record of another version.
pub fn decode<T: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<u16>,
    }
    if let Ok(Head { schema: Some(found) }) = rmp_serde::from_slice(bytes)
        && found != SCHEMA
    {
        return Err(Error::Schema { kind, found, expected: SCHEMA });
    }
    rmp_serde::from_slice(bytes).map_err(|error| Error::Decode { kind, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> PromptTask {
        PromptTask {
            schema: SCHEMA,
            id: RecordId::derive(&[b"t"]),
            position: 3,
            epoch: 0,
            row: 3,
            purpose: Purpose::Train,
            prompt: Prompt::Text("Once".into()),
        }
    }

    #[test]
    fn records_round_trip() {
        let bytes = encode(&task());
        assert_eq!(decode::<PromptTask>("prompt_task", &bytes).expect("decodes"), task());
    }

    #[test]
    fn another_schema_version_is_named() {
        let bytes = encode(&PromptTask { schema: 9, ..task() });
        let error = decode::<PromptTask>("prompt_task", &bytes).expect_err("refused");
        assert!(error.to_string().contains("schema version 9, expected 1"), "{error}");
    }

    #[test]
    fn names_are_those_that_records_hold() {
        // MessagePack writes a unit variant as its name.
        let written = |bytes: Vec<u8>| String::from_utf8(bytes[1..].to_vec()).expect("text");
        for reason in [DropReason::Tie, DropReason::JudgementFailed, DropReason::DeadLetter, DropReason::InvalidPrompt]
        {
            assert_eq!(written(encode(&reason)), reason.name());
        }
        for status in [JudgementStatus::Ok, JudgementStatus::ParseFailed, JudgementStatus::InvalidInput] {
            assert_eq!(written(encode(&status)), status.name());
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(matches!(decode::<PromptTask>("prompt_task", b"garbage"), Err(Error::Decode { .. })));
    }
}
