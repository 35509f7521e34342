//! Comparing two policies: both answer the same held-out prompts with the same draws, a judge says who did better.

use std::sync::Arc;

use joust_core::{
    Finish, JudgementStatus, JudgementValue, Player, Prompt, PromptTask, Purpose, RecordId, Rollout, SCHEMA,
    rng::{Stream, uniform},
};
use joust_data::Tokenizer;
use joust_engine::{Engine, SamplingParams, Snapshot};
use joust_judges::{Ask, CallContext, Candidate, Judge, JudgeItem};
use joust_rollout::{Models, answer};
use serde::Serialize;
use tokio::time::{Duration, Instant};

use crate::stats::{Tally, distinct_2, distinct_texts};

/// Longest wait for the judgements of one evaluation.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What an evaluation works with.
pub struct Evaluator {
    /// The sampling engine.
    pub engine: Engine,
    /// The policies' tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Who compares.
    pub judge: Arc<dyn Judge>,
    /// Held-out prompts.
    pub prompts: Vec<(u64, Prompt)>,
    /// How answers are drawn.
    pub params: SamplingParams,
    /// Seed of the run.
    pub seed: u64,
}

/// One prompt answered by both.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// Answer of the model that is compared with.
    pub before: String,
    /// Answer of the model that is asked about.
    pub after: String,
    /// Probability that `after` is preferred; `None` if the judgement failed.
    pub preference: Option<f64>,
}

/// What an evaluation found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Wins, ties, losses.
    pub tally: Tally,
    /// Every prompt with both answers.
    pub samples: Vec<Sample>,
    /// The answers that were asked about, with their ids.
    pub answers: Vec<Rollout>,
    /// The answers that they were compared with.
    pub others: Vec<Rollout>,
}

impl Report {
    /// Returns the share of answers that ended in EOS.
    pub fn eos_share(rollouts: &[Rollout]) -> f64 {
        let ended = rollouts.iter().flat_map(|r| &r.completions).filter(|c| c.finish == Finish::Eos).count();
        ended as f64 / rollouts.len().max(1) as f64
    }

    /// Returns distinct-2 of the first and the second model's answers, and the first's number of different answers.
    pub fn variety(&self) -> (f64, f64, usize) {
        let after: Vec<String> = self.samples.iter().map(|sample| sample.after.clone()).collect();
        let before: Vec<String> = self.samples.iter().map(|sample| sample.before.clone()).collect();
        (distinct_2(&after), distinct_2(&before), distinct_texts(&after))
    }
}

impl Evaluator {
    /// Answers every held-out prompt once.
    ///
    /// # Errors
    /// A prompt that the model cannot take, or an engine that failed.
    pub async fn answers(&self, model: &Arc<Snapshot>) -> anyhow::Result<Vec<Rollout>> {
        let task = |(index, (row, prompt)): (usize, &(u64, Prompt))| PromptTask {
            schema: SCHEMA,
            id: RecordId::derive(&[b"eval", &(index as u64).to_le_bytes(), prompt.display().as_bytes()]),
            position: index as u64,
            epoch: 0,
            row: *row,
            purpose: Purpose::Eval,
            prompt: prompt.clone(),
        };
        let tasks: Vec<PromptTask> = self.prompts.iter().enumerate().map(task).collect();
        let players = &[Player::Policy];
        let ask = joust_rollout::Ask { params: &self.params, seed: self.seed, players, style: "", revision: None };
        Ok(answer(&self.engine, &self.tokenizer, Models::alone(model), &tasks, &ask).await?)
    }

    /// Compares answers of two models to the same prompts.
    pub async fn compare(&self, answers: Vec<Rollout>, others: Vec<Rollout>) -> Report {
        let candidate = |rollout: &Rollout| {
            let completion = &rollout.completions[0];
            Candidate {
                player: completion.player,
                text: completion.text.clone(),
                token_count: completion.token_ids.len(),
                truncated: completion.finish == Finish::Length,
            }
        };
        let items: Vec<JudgeItem> = answers
            .iter()
            .zip(&others)
            .map(|(after, before)| {
                let mut candidates = vec![candidate(after), candidate(before)];
                if self.is_swapped(after.task.position) {
                    candidates.reverse();
                }
                let (id, prompt) = (after.task.id, after.task.prompt.clone());
                JudgeItem { id, ask: Ask::Compare, prompt, candidates }
            })
            .collect();
        let judgements = self.judge.judge(&items, &CallContext::new(self.seed, Instant::now() + TIMEOUT)).await;
        let mut report = Report { tally: Tally::default(), samples: Vec::new(), answers, others };
        for (at, (judgement, item)) in judgements.into_iter().zip(items).enumerate() {
            let swapped = self.is_swapped(report.answers[at].task.position);
            let preference = match (judgement.status, judgement.value) {
                (JudgementStatus::Ok, Some(JudgementValue::Preference(p))) if swapped => Some(1.0 - p),
                (JudgementStatus::Ok, Some(JudgementValue::Preference(p))) => Some(p),
                _ => None,
            };
            report.tally.enter(preference);
            let sides = if swapped { [1, 0] } else { [0, 1] };
            let [after, before] = sides.map(|side: usize| item.candidates[side].text.clone());
            report.samples.push(Sample { prompt: item.prompt.display(), before, after, preference });
        }
        report
    }

    /// Returns whether the judge is shown the other model's answer first: drawn for each prompt, so that a judge's liking for
    /// one place favours neither model.
    fn is_swapped(&self, position: u64) -> bool {
        uniform(self.seed, Stream::Order, position, (0, 0)) < 0.5
    }
}
