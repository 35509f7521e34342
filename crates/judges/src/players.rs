//! A judge that looks at who answered and not at what was said: preferences that are made, not found.

use async_trait::async_trait;
use joust_config::judge::PlayersJudge;
use joust_core::{Judgement, Player, Provenance};

use crate::{
    CallContext, Judge, JudgeItem,
    verdict::{Verdict, check, from_probabilities, from_scores, judgement},
};

/// Prefers the answers of some players to those of others (counterfactual DPO, <https://arxiv.org/abs/2401.09566>).
pub struct Players {
    provenance: Provenance,
    order: Vec<Player>,
}

impl Players {
    /// Ranks players as the configuration lists them, the best first; the others come last.
    pub fn new(provenance: Provenance, config: &PlayersJudge) -> Self {
        Self { provenance, order: config.order.clone() }
    }

    fn verdict(&self, item: &JudgeItem) -> Verdict {
        check(item)?;
        let place = |player: Player| self.order.iter().position(|own| *own == player).unwrap_or(self.order.len());
        let scores: Vec<f64> = item.candidates.iter().map(|candidate| -(place(candidate.player) as f64)).collect();
        if item.ask == crate::Ask::Score {
            return from_scores(item.ask, scores, 1.0);
        }
        from_probabilities(item.ask, scores.len(), |i, j| match scores[i].total_cmp(&scores[j]) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
    }
}

#[async_trait]
impl Judge for Players {
    fn name(&self) -> &str {
        &self.provenance.judge
    }

    fn config_hash(&self) -> &str {
        &self.provenance.config_hash
    }

    async fn judge(&self, items: &[JudgeItem], _call: &CallContext) -> Vec<Judgement> {
        items.iter().map(|item| judgement(self.verdict(item), &self.provenance)).collect()
    }
}
