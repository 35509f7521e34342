//! Figures about answers: win rates with intervals, variety of texts.

use std::collections::HashSet;

use serde::Serialize;

/// Wins, ties and losses of one policy against another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Prompts on which it was preferred.
    pub wins: u64,
    /// Prompts without a preference.
    pub ties: u64,
    /// Prompts on which the other was preferred.
    pub losses: u64,
    /// Prompts whose judgement failed; they count nowhere.
    pub failed: u64,
}

impl Tally {
    /// Enters the probability that the policy is preferred, or a failed judgement.
    pub fn enter(&mut self, preference: Option<f64>) {
        match preference {
            None => self.failed += 1,
            Some(p) if p > 0.5 => self.wins += 1,
            Some(p) if p < 0.5 => self.losses += 1,
            Some(_) => self.ties += 1,
        }
    }

    /// Returns the number of judged prompts.
    pub fn judged(&self) -> u64 {
        self.wins + self.ties + self.losses
    }

    /// Returns the share of wins, ties counted a half; `None` if nothing was judged.
    pub fn win_rate(&self) -> Option<f64> {
        let n = self.judged();
        (n > 0).then(|| (self.wins as f64 + 0.5 * self.ties as f64) / n as f64)
    }

    /// Returns Wilson's 95 % interval of the win rate.
    ///
    /// See "Probable inference, the law of succession, and statistical inference", Wilson, 1927.
    pub fn interval(&self) -> (f64, f64) {
        let Some(p) = self.win_rate() else { return (0.0, 1.0) };
        let (n, z) = (self.judged() as f64, 1.959_963_984_540_054);
        let center = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z * z / n;
        (((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0))
    }
}

/// Returns distinct-2: distinct word pairs over all word pairs of the texts, in [0, 1].
///
/// See "A Diversity-Promoting Objective Function for Neural Conversation Models", Li et al., <https://arxiv.org/abs/1510.03055>.
pub fn distinct_2(texts: &[String]) -> f64 {
    let mut seen = HashSet::new();
    let mut total = 0;
    for text in texts {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        total += words.len().saturating_sub(1);
        seen.extend(words.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())));
    }
    if total == 0 { 0.0 } else { seen.len() as f64 / total as f64 }
}

/// Counts different texts.
pub fn distinct_texts(texts: &[String]) -> usize {
    texts.iter().collect::<HashSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // statsmodels.stats.proportion.proportion_confint(90, 100, method="wilson")
        let (low, high) = Tally { wins: 90, losses: 10, ..Tally::default() }.interval();
        assert!((low - 0.825_634_3).abs() < 1e-6 && (high - 0.944_771_2).abs() < 1e-6, "{low} {high}");
    }

    #[test]
    fn ties_count_a_half_and_failures_nowhere() {
        let mut tally = Tally::default();
        for preference in [Some(0.9), Some(0.5), Some(0.1), Some(0.5), None] {
            tally.enter(preference);
        }
        assert_eq!(tally, Tally { wins: 1, ties: 2, losses: 1, failed: 1 });
        assert_eq!(tally.win_rate(), Some(0.5));
        assert_eq!(Tally::default().win_rate(), None);
    }

    #[test]
    fn variety_counts_pairs_and_texts() {
        let texts = ["a b a b".to_owned(), "A b".to_owned(), "A b".to_owned()];
        assert!((distinct_2(&texts) - 2.0 / 5.0).abs() < 1e-12);
        assert_eq!(distinct_texts(&texts), 2);
    }
}
