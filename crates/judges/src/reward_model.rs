//! Scalar reward models: one number per answer from a model that is run elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use joust_core::{Judgement, JudgementStatus, Prompt, Provenance};
use tokio::{task::spawn_blocking, time::timeout_at};

use crate::{
    CallContext, Judge, JudgeItem,
    verdict::{Failure, Verdict, check, from_scores, judgement},
};

/// Scores answers with a model; implemented where the tensors are.
pub trait Scorer: Send + Sync {
    /// Computes one score per (prompt, answer), in order; `None` for a text that the model cannot read, being longer than
    /// its limit. Blocks while the model runs.
    ///
    /// # Errors
    /// A message saying what failed for the whole batch.
    fn score(&self, texts: Vec<(Prompt, String)>) -> Result<Vec<Option<f64>>, String>;
}

/// Judges by a reward model's scores: `P(i ≻ j) = σ(scale·(r_i − r_j))`, Bradley-Terry at scale 1.
pub struct RewardModel {
    provenance: Provenance,
    scorer: Arc<dyn Scorer>,
    scale: f64,
}

impl RewardModel {
    /// Wraps a scorer; `scale` is the log-odds of preference per unit of reward, above 0.
    pub fn new(provenance: Provenance, scorer: Arc<dyn Scorer>, scale: f64) -> Self {
        Self { provenance, scorer, scale }
    }

    /// Scores every candidate of every item in one batch.
    async fn score(&self, items: &[&JudgeItem], call: &CallContext) -> Result<Vec<Option<f64>>, Failure> {
        let texts: Vec<(Prompt, String)> = items
            .iter()
            .flat_map(|item| item.candidates.iter().map(|candidate| (item.prompt.clone(), candidate.text.clone())))
            .collect();
        let wanted = texts.len();
        let scorer = Arc::clone(&self.scorer);
        let unavailable = |detail: String| Failure::new(JudgementStatus::Unavailable, detail);
        match timeout_at(call.deadline, spawn_blocking(move || scorer.score(texts))).await {
            Err(_) => Err(Failure::new(JudgementStatus::Deadline, "no scores before the deadline")),
            Ok(Err(error)) => Err(unavailable(format!("reward model stopped: {error}"))),
            Ok(Ok(Err(message))) => Err(unavailable(message)),
            Ok(Ok(Ok(scores))) if scores.len() == wanted => Ok(scores),
            Ok(Ok(Ok(scores))) => Err(unavailable(format!("expected {wanted} scores, got {}", scores.len()))),
        }
    }
}

#[async_trait]
impl Judge for RewardModel {
    fn name(&self) -> &str {
        &self.provenance.judge
    }

    fn config_hash(&self) -> &str {
        &self.provenance.config_hash
    }

    async fn judge(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement> {
        let valid: Vec<&JudgeItem> = items.iter().filter(|item| check(item).is_ok()).collect();
        let scores = if valid.is_empty() { Ok(Vec::new()) } else { self.score(&valid, call).await };
        let mut next = 0;
        let mut verdict = |item: &JudgeItem| -> Verdict {
            check(item)?;
            let scores = scores.as_ref().map_err(Clone::clone)?;
            let own = &scores[next..next + item.candidates.len()];
            next += item.candidates.len();
            let too_long = |i| {
                let detail = format!("candidate {i} and its prompt are longer than the reward model's limit");
                Failure::new(JudgementStatus::InvalidInput, detail)
            };
            let own = own.iter().enumerate().map(|(i, score)| score.ok_or_else(|| too_long(i)));
            from_scores(item.ask, own.collect::<Result<_, _>>()?, self.scale)
        };
        items.iter().map(|item| judgement(verdict(item), &self.provenance)).collect()
    }
}
