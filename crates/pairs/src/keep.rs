//! Which pairs of a step are worth training on, by what the models say of them.

use serde::{Deserialize, Serialize};

/// What pairs are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepBy {
    /// The reference's log-prob a token of chosen minus rejected, highest first: pairs whose order the reference finds clear.
    Clarity,
    /// |hc − hr|, lowest first: pairs that the policy has not settled (<https://arxiv.org/abs/2406.17312>).
    Margin,
    /// The centred hidden embedding similarity, length-normalised, lowest first: pairs whose training does not push the chosen answer down
    /// (CHES, <https://arxiv.org/abs/2410.08847>).
    Ches,
}

/// Which share of a step's pairs is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Keep {
    /// What they are ranked by.
    pub by: KeepBy,
    /// In (0, 1]; at least one pair stays.
    pub share: f64,
}

impl Keep {
    /// Returns whether each pair stays; equal values prefer the earlier pair.
    pub fn choose(&self, values: &[f64]) -> Vec<bool> {
        let count = ((values.len() as f64 * self.share).ceil() as usize).clamp(1, values.len().max(1));
        let sign = if self.by == KeepBy::Clarity { -1.0 } else { 1.0 };
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&i, &j| (sign * values[i]).total_cmp(&(sign * values[j])).then(i.cmp(&j)));
        let mut kept = vec![false; values.len()];
        order.into_iter().take(count).for_each(|i| kept[i] = true);
        kept
    }
}

/// Computes the length-normalised CHES score `⟨S⁺, S⁻⟩/(n⁺·n⁻) − ‖S⁺‖²/n⁺²`, S the sums of the last hidden states that predict each token.
pub fn ches(chosen_rejected: f64, chosen_chosen: f64, [chosen_tokens, rejected_tokens]: [usize; 2]) -> f64 {
    let (chosen, rejected) = (chosen_tokens.max(1) as f64, rejected_tokens.max(1) as f64);
    chosen_rejected / (chosen * rejected) - chosen_chosen / (chosen * chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_similarity_is_reached() {
        let sum = |states: &[[f64; 2]]| states.iter().fold([0.0, 0.0], |s, h| [s[0] + h[0], s[1] + h[1]]);
        let (plus, minus) = (sum(&[[0.5, 0.2], [0.1, 0.4], [0.3, 0.3]]), sum(&[[0.5, 0.2], [0.2, -0.1]]));
        let dot = |a: [f64; 2], b: [f64; 2]| a[0] * b[0] + a[1] * b[1];
        assert!((dot(plus, minus) - dot(plus, plus) + 0.9).abs() < 1e-12);
        assert!((ches(dot(plus, minus), dot(plus, plus), [3, 2]) + 0.06).abs() < 1e-12);
    }

    #[test]
    fn shares_are_rounded_up_and_ties_go_to_the_earlier() {
        let keep = |by, share| Keep { by, share }.choose(&[0.3, -1.0, 0.3, 2.0, 0.1]);
        assert_eq!(keep(KeepBy::Clarity, 0.5), [true, false, true, true, false]);
        assert_eq!(keep(KeepBy::Margin, 0.4), [false, true, false, false, true]);
        assert_eq!(keep(KeepBy::Ches, 0.01), [false, true, false, false, false]);
        assert_eq!(keep(KeepBy::Ches, 1.0), [true; 5]);
        assert!(Keep { by: KeepBy::Ches, share: 0.5 }.choose(&[]).is_empty());
    }
}
