//! A synthetic annotator with a known utility and planted errors: the truth that other parts are tested against.
//!
//! Every draw is keyed by (seeds, item, order shown, attempt), so that the same question gets the same answer (R6).

use async_trait::async_trait;
use joust_config::judge::OracleJudge;
use joust_core::{
    Judgement, JudgementStatus, Provenance, RecordId,
    rng::{Stream, bits, uniform},
};

use crate::{
    Ask, CallContext, Candidate, Judge, JudgeItem, Result,
    swap::{Pooled, pool_orders},
    verdict::{Failure, Verdict, check, from_probabilities, from_scores, judgement, sigmoid},
    words::{Lexicon, Words},
};

/// What a draw decides; each has its own place in the stream.
#[derive(Clone, Copy)]
enum Draw {
    Fails = 0,
    FailsHow = 1,
    NoiseRadius = 2,
    NoiseAngle = 3,
}

/// Draws for one kind of decision and one attempt.
const DRAWS: u32 = 4;

/// A judge whose preferences are known exactly.
pub struct Oracle {
    provenance: Provenance,
    config: OracleJudge,
    lexicon: Lexicon,
}

/// Names the draws of one question.
#[derive(Clone, Copy)]
struct Key {
    seed: u64,
    item: u64,
    attempt: u32,
}

impl Oracle {
    /// Reads the utility.
    ///
    /// # Errors
    /// [`crate::Error::Word`] or [`crate::Error::WordTwice`] for a word that cannot be counted.
    pub fn new(provenance: Provenance, config: &OracleJudge) -> Result<Self> {
        let lexicon = Lexicon::new(&config.words, &config.name, "words")?;
        Ok(Self { provenance, config: config.clone(), lexicon })
    }

    /// Computes the hidden utility of an answer, without any planted error.
    pub fn utility(&self, candidate: &Candidate) -> f64 {
        let listed = self.lexicon.sum(&Words::of(&candidate.text), u32::MAX);
        listed + self.config.length_weight * length_words(candidate)
    }

    /// Shows candidates `i` and `j` of an item in both orders: the pooled log-odds that `i` is preferred, and the gap that
    /// position made. A tie band is not applied.
    pub fn ask_both_orders(&self, item: &JudgeItem, (i, j): (usize, usize), call: &CallContext) -> Pooled {
        let key = self.key(item.id, call);
        pool_orders(self.first_wins(item, (i, j), key), self.first_wins(item, (j, i), key))
    }

    /// Computes the log-odds that the answer shown first wins.
    fn first_wins(&self, item: &JudgeItem, order: (usize, usize), key: Key) -> f64 {
        let (first, second) = (&item.candidates[order.0], &item.candidates[order.1]);
        let preference = self.config.scale * (self.utility(first) - self.utility(second));
        let length = self.config.length_slope * (length_words(first) - length_words(second));
        preference + length + self.config.position_bias + self.config.noise * key.normal(order)
    }

    /// Computes the probability that `i` is preferred to `j`, ties called as such.
    fn preference(&self, item: &JudgeItem, (i, j): (usize, usize), call: &CallContext) -> f64 {
        let logit = if self.config.both_orders {
            self.ask_both_orders(item, (i, j), call).logit
        } else {
            self.first_wins(item, (i, j), self.key(item.id, call))
        };
        let p = sigmoid(logit);
        if (p - 0.5).abs() <= self.config.tie_band { 0.5 } else { p }
    }

    fn verdict(&self, item: &JudgeItem, call: &CallContext) -> Verdict {
        check(item)?;
        let key = self.key(item.id, call);
        if key.uniform(Draw::Fails, (0, 0)) < self.config.failure_rate {
            return Err(key.failure());
        }
        let noisy = |(i, candidate): (usize, &Candidate)| {
            let length = self.config.length_slope * length_words(candidate);
            self.utility(candidate) + length + self.config.noise * key.normal((i, i))
        };
        match item.ask {
            Ask::Score => from_scores(item.ask, item.candidates.iter().enumerate().map(noisy).collect(), 1.0),
            Ask::Compare | Ask::Rank => {
                from_probabilities(item.ask, item.candidates.len(), |i, j| self.preference(item, (i, j), call))
            }
        }
    }

    fn key(&self, item: RecordId, call: &CallContext) -> Key {
        let mut low = [0; 8];
        low.copy_from_slice(&item.as_bytes()[..8]);
        let seed = bits(call.seed, Stream::Judge, self.config.seed, (0, 0));
        Key { seed, item: u64::from_le_bytes(low), attempt: call.attempt }
    }
}

impl Key {
    fn uniform(self, draw: Draw, (first, second): (usize, usize)) -> f64 {
        let order = ((first as u32) << 16) | second as u32;
        uniform(self.seed, Stream::Judge, self.item, (order, self.attempt * DRAWS + draw as u32))
    }

    /// Draws a standard normal (Box-Muller).
    fn normal(self, order: (usize, usize)) -> f64 {
        // 1 − u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform(Draw::NoiseRadius, order)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(Draw::NoiseAngle, order)).cos()
    }

    fn failure(self) -> Failure {
        if self.uniform(Draw::FailsHow, (0, 0)) < 0.5 {
            Failure::new(JudgementStatus::Unavailable, "planted failure: the oracle did not answer")
        } else {
            Failure::new(JudgementStatus::ParseFailed, "planted failure: the oracle's answer holds no verdict")
        }
    }
}

#[async_trait]
impl Judge for Oracle {
    fn name(&self) -> &str {
        &self.provenance.judge
    }

    fn config_hash(&self) -> &str {
        &self.provenance.config_hash
    }

    async fn judge(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement> {
        items.iter().map(|item| judgement(self.verdict(item, call), &self.provenance)).collect()
    }
}

/// Counts the words of an answer: what stands between white space.
fn length_words(candidate: &Candidate) -> f64 {
    candidate.text.split_whitespace().count() as f64
}
