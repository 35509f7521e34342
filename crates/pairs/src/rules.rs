//! The settings of pairing: which answers are contrasted and how sure the label is.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which of the K answers are contrasted; with two answers every choice of pairs is the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The strongest against the weakest.
    BestWorst,
    /// The strongest against a random other, drawn by the keyed generator.
    MaxRandom,
    /// Every two answers.
    AllPairs,
    /// Every two answers of which one is preferred with more than [`PairingRules::threshold`] (RS-DPO,
    /// <https://arxiv.org/abs/2402.10038>).
    Rejection,
    /// The strongest of all against the weakest of five drawn by the keyed generator, which is not too weak
    /// (<https://arxiv.org/abs/2502.16825>).
    SweetSpot,
    /// The strongest against the weakest, the second against the last but one, and so on (OSP,
    /// <https://arxiv.org/abs/2405.14103>).
    Ranked,
    /// The two strongest (`max_max` of RLHF Workflow's scripts, <https://arxiv.org/abs/2405.07863>).
    MaxMax,
    /// The strongest against the weakest first, against better and better answers later: one stage a rank, over the run (Curry-DPO,
    /// <https://arxiv.org/abs/2403.07230>).
    Curriculum,
    /// The answers that beat the others most and least often, with their win rates.
    WinRate,
    /// Each answer of the policy against the answers of all other players.
    Opponent,
    /// All answers together, as they were sampled.
    Single,
    /// All answers together, the strongest first.
    List,
}

/// Which pairs are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Pairs without a winner; does nothing with soft and sampled labels, which learn from ties.
    Ties,
    /// Pairs of the same tokens; does nothing with soft and sampled labels, whose fixed points need them.
    Identical,
    /// Answers that did not end in EOS take no part.
    Truncated,
}

/// What becomes of a probability of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The winner is chosen with `p` = 1; a tie that no filter refuses has no winner and keeps `p` = 1/2.
    Hard,
    /// The more probable answer is chosen and `p` is its probability, in [1/2, 1].
    Soft,
    /// Who wins is drawn with the probability, by the keyed generator; then as [`Label::Hard`]. On average the soft label.
    Sampled,
}

/// Settings of [`crate::outcome_of`].
#[derive(Debug, Clone, PartialEq)]
pub struct PairingRules {
    /// Which answers are contrasted.
    pub select: Select,
    /// Which pairs are refused.
    pub filters: Vec<Filter>,
    /// What becomes of a probability.
    pub label: Label,
    /// Subtracted from the score of an answer that did not end in EOS, before pairing; at least 0, in the score's unit. A
    /// judgement that holds probabilities is moved as if scores lay behind it: by `score_scale` times this, in log-odds.
    pub missing_eos_penalty: f64,
    /// Log-odds of preference per unit of score difference, above 0; 1 for a Bradley-Terry reward model.
    pub score_scale: f64,
    /// Probability of preference that [`Select::Rejection`] asks for, in [1/2, 1); 0.85 in RS-DPO.
    pub threshold: f64,
    /// What is asked about a pair whose judge wrote notes, so that its reasons are trained on; `None` trains on none.
    pub rationale: Option<String>,
    /// Prompts of the run, for [`Select::Curriculum`].
    pub positions: u64,
    /// Seed of the run, for [`Select::MaxRandom`].
    pub seed: u64,
}

impl PairingRules {
    /// Checks the numbers, so that pairing itself cannot fail.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the key and its range.
    pub fn validate(&self) -> Result<()> {
        let (penalty, scale) = (self.missing_eos_penalty, self.score_scale);
        if !penalty.is_finite() || penalty < 0.0 {
            let expected = "a finite number of at least 0";
            return Err(Error::Setting { name: "sampling.missing_eos_penalty", value: penalty, expected });
        }
        if !scale.is_finite() || scale <= 0.0 {
            return Err(Error::Setting { name: "score_scale", value: scale, expected: "a finite number above 0" });
        }
        if !(0.5..1.0).contains(&self.threshold) {
            let expected = "a number of at least 0.5 and below 1";
            return Err(Error::Setting { name: "pairing.threshold", value: self.threshold, expected });
        }
        Ok(())
    }

    /// Returns whether a filter is in force: soft and sampled labels keep ties and identical answers.
    pub(crate) fn refuses(&self, filter: Filter) -> bool {
        let applies = self.label == Label::Hard || filter == Filter::Truncated;
        applies && self.filters.contains(&filter)
    }
}
