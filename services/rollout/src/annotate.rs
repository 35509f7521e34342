//! Choosing, before any judge is paid, which answers reach one.

use std::sync::Arc;

use joust_core::Rollout;
use joust_engine::{Engine, ScoreRequest, Snapshot};
use joust_pairs::annotate::{aepo, closest, similarity};

use crate::Result;

/// How many answers of a prompt are judged, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotate {
    /// Answers that are judged, at least 2.
    pub count: usize,
    /// What they are chosen by.
    pub by: AnnotateBy,
}

/// What answers are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotateBy {
    /// They stand for all and are unlike each other: [`aepo`].
    Aepo,
    /// The policy has not decided between them: [`closest`] implicit rewards.
    Margin,
}

impl Annotate {
    /// Drops the answers that are not chosen.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] if the reference cannot read an answer.
    pub(crate) async fn choose(
        self,
        engine: &Engine,
        reference: &Arc<Snapshot>,
        rollouts: &mut [Rollout],
    ) -> Result<()> {
        let rewards = match self.by {
            AnnotateBy::Aepo => Vec::new(),
            AnnotateBy::Margin => implicit_rewards(engine, reference, rollouts).await?,
        };
        let mut rewards = rewards.as_slice();
        for rollout in rollouts {
            let ids: Vec<&[u32]> = rollout.completions.iter().map(|answer| answer.token_ids.as_slice()).collect();
            let kept = match self.by {
                AnnotateBy::Aepo => {
                    let row = |a: &&[u32]| ids.iter().map(|b| similarity(a, b)).collect();
                    aepo(&ids.iter().map(row).collect::<Vec<Vec<f64>>>(), self.count)
                }
                AnnotateBy::Margin => {
                    let (own, rest) = rewards.split_at(ids.len());
                    rewards = rest;
                    closest(own, &ids, self.count)
                }
            };
            let mut index = 0..;
            rollout.completions.retain(|_| index.next().is_some_and(|index| kept.contains(&index)));
        }
        Ok(())
    }
}

/// Computes log π − log π_ref of every answer, in nats, rollout after rollout; π is the one that sampled it.
async fn implicit_rewards(engine: &Engine, reference: &Arc<Snapshot>, rollouts: &[Rollout]) -> Result<Vec<f64>> {
    let answers =
        || rollouts.iter().flat_map(|rollout| rollout.completions.iter().map(move |answer| (rollout, answer)));
    let sequences = answers().map(|(rollout, answer)| (rollout.prompt_ids.clone(), answer.token_ids.clone())).collect();
    let held_to = engine.score(ScoreRequest { model: reference.clone(), sequences }).await?;
    let own = answers().map(|(_, answer)| answer.logprobs.iter().map(|logp| f64::from(*logp)).sum::<f64>());
    Ok(own.zip(held_to).map(|(own, held_to)| own - f64::from(held_to)).collect())
}
