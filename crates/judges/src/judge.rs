//! What a judge is asked and what every judge promises.

use async_trait::async_trait;
use joust_core::{Finish, Judgement, Player, Prompt, RecordId, Rollout};
use tokio::time::Instant;

/// What is asked about the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A number for each candidate, higher is better.
    Score,
    /// The probability that the first of two candidates is preferred.
    Compare,
    /// The matrix of P(i preferred to j).
    Rank,
}

/// One answer as a judge sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who answered.
    pub player: Player,
    /// The text without special tokens.
    pub text: String,
    /// Completion length in tokens, the EOS included iff it was sampled.
    pub token_count: usize,
    /// Whether it was cut before an EOS.
    pub truncated: bool,
}

/// One question to a judge.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeItem {
    /// Names the item in keyed draws; the rollout's id where there is one.
    pub id: RecordId,
    /// What is asked.
    pub ask: Ask,
    /// What was to be answered.
    pub prompt: Prompt,
    /// The answers, in the order that the judgement follows.
    pub candidates: Vec<Candidate>,
}

/// What holds for one call.
#[derive(Debug, Clone, Copy)]
pub struct CallContext {
    /// Seed of the run, for judges that draw.
    pub seed: u64,
    /// When the caller stops waiting; items without an answer by then get [`joust_core::JudgementStatus::Deadline`].
    pub deadline: Instant,
    /// Times these items were asked before; a keyed draw of a later attempt differs.
    pub attempt: u32,
    /// Whether the judge is to write about each candidate, if it can.
    pub notes: bool,
}

/// Compares or scores answers.
#[async_trait]
pub trait Judge: Send + Sync {
    /// Returns the name in the run file.
    fn name(&self) -> &str;

    /// Returns the BLAKE3 of the resolved configuration, hexadecimal.
    fn config_hash(&self) -> &str;

    /// Returns what it can be asked.
    fn asks(&self) -> &'static [Ask] {
        &[Ask::Score, Ask::Compare, Ask::Rank]
    }

    /// Returns whether it can write about candidates.
    fn writes_notes(&self) -> bool {
        false
    }

    /// Judges a batch: one judgement per item, in the order of the items, each with its own status.
    async fn judge(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement>;
}

impl JudgeItem {
    /// Asks about all answers of a rollout.
    pub fn of(rollout: &Rollout, ask: Ask) -> Self {
        let candidate = |completion: &joust_core::Completion| Candidate {
            player: completion.player,
            text: completion.text.clone(),
            token_count: completion.token_ids.len(),
            truncated: completion.finish == Finish::Length,
        };
        Self {
            id: rollout.id,
            ask,
            prompt: rollout.task.prompt.clone(),
            candidates: rollout.completions.iter().map(candidate).collect(),
        }
    }
}

impl CallContext {
    /// Starts a first call.
    pub fn new(seed: u64, deadline: Instant) -> Self {
        Self { seed, deadline, attempt: 0, notes: false }
    }
}
