//! What a judgement says about K answers after penalties: scores, or probabilities of preference.

use std::cmp::Ordering;

use joust_core::{
    Completion, Finish, Judgement, JudgementStatus, JudgementValue,
    rng::{Stream, uniform},
};

use crate::PairingRules;

/// Largest distance of `P_ij + P_ji` from 1, and of `P_ii` from 1/2, that is taken for rounding.
const COMPLEMENT_TOLERANCE: f64 = 1e-6;

/// A checked judgement on `k` answers.
pub(crate) enum Beliefs {
    /// One finite number per answer.
    Scores { scores: Vec<f64>, scale: f64 },
    /// Row-major K x K probabilities of preference, and the scores that they were drawn from, if any.
    Matrix { k: usize, p: Vec<f64>, scores: Vec<f64> },
}

impl Beliefs {
    /// Reads a judgement; `None` if it failed, does not fit the answers or holds what is not a finite number (R3).
    pub(crate) fn of(judgement: &Judgement, answers: &[Completion], rules: &PairingRules) -> Option<Self> {
        if judgement.status != JudgementStatus::Ok {
            return None;
        }
        let k = answers.len();
        let penalties: Vec<f64> = answers.iter().map(|answer| penalty(answer, rules)).collect();
        match judgement.value.as_ref()? {
            JudgementValue::Scores(scores) if scores.len() == k => {
                let scores: Vec<f64> = scores.iter().zip(&penalties).map(|(score, penalty)| score - penalty).collect();
                let usable = scores.iter().all(|score| score.is_finite());
                usable.then_some(Self::Scores { scores, scale: rules.score_scale })
            }
            JudgementValue::Preference(p) if k == 2 => {
                Self::from_matrix(2, vec![0.5, *p, 1.0 - *p, 0.5], &penalties, rules.score_scale)
            }
            JudgementValue::Matrix(p) if p.len() == k * k => {
                Self::from_matrix(k, p.clone(), &penalties, rules.score_scale)
            }
            _ => None,
        }
    }

    fn from_matrix(k: usize, mut p: Vec<f64>, penalties: &[f64], scale: f64) -> Option<Self> {
        let at = |i: usize, j: usize| i * k + j;
        let is_valid = |i: usize, j: usize| {
            let (ij, ji) = (p[at(i, j)], p[at(j, i)]);
            (0.0..=1.0).contains(&ij) && (ij + ji - 1.0).abs() <= COMPLEMENT_TOLERANCE
        };
        if !(0..k).all(|i| (0..k).all(|j| is_valid(i, j))) {
            return None;
        }
        for i in 0..k {
            for j in i + 1..k {
                // One half is computed and the other follows, so that both orders of a pair agree to the last bit.
                let moved = shift_logit(p[at(i, j)], scale * (penalties[j] - penalties[i]));
                p[at(i, j)] = moved;
                p[at(j, i)] = 1.0 - moved;
            }
        }
        Some(Self::Matrix { k, p, scores: Vec::new() })
    }

    /// Returns P(answer i is preferred to answer j), in [0, 1].
    pub(crate) fn probability(&self, i: usize, j: usize) -> f64 {
        match self {
            Self::Scores { scores, scale } => sigmoid(scale * (scores[i] - scores[j])),
            Self::Matrix { k, p, .. } => p[i * k + j],
        }
    }

    /// Compares two answers; scores are compared as they are, because their sigmoid rounds small differences away.
    pub(crate) fn compare(&self, i: usize, j: usize) -> Ordering {
        match self {
            Self::Scores { scores, .. } => scores[i].partial_cmp(&scores[j]).unwrap_or(Ordering::Equal),
            Self::Matrix { k, p, .. } => p[i * k + j].partial_cmp(&0.5).unwrap_or(Ordering::Equal),
        }
    }

    /// Returns what best and worst are measured by: the score, or the mean probability to beat the other answers.
    pub(crate) fn strength(&self, i: usize) -> f64 {
        match self {
            Self::Scores { scores, .. } => scores[i],
            Self::Matrix { k, p, .. } => {
                let mean = p[i * k..(i + 1) * k].iter().sum::<f64>() / *k as f64;
                // Answers that are alike must not be told apart by the order in which their rows were added.
                (mean * 1e12).round() / 1e12
            }
        }
    }

    /// Returns the mean probability of an answer to beat the K answers, itself counted as one half.
    pub(crate) fn win_rate(&self, i: usize) -> f64 {
        let k = self.answers();
        (0..k).map(|j| self.probability(i, j)).sum::<f64>() / k as f64
    }

    /// Returns K.
    fn answers(&self) -> usize {
        match self {
            Self::Scores { scores, .. } => scores.len(),
            Self::Matrix { k, .. } => *k,
        }
    }

    /// Draws the winner of each two answers with its probability; `key` is (run seed, position of the prompt).
    pub(crate) fn drawn(&self, key: (u64, u64)) -> Self {
        let k = self.answers();
        let mut p = vec![0.5; k * k];
        for i in 0..k {
            for j in i + 1..k {
                let wins = uniform(key.0, Stream::Label, key.1, (i as u32, j as u32)) < self.probability(i, j);
                p[i * k + j] = f64::from(u8::from(wins));
                p[j * k + i] = 1.0 - p[i * k + j];
            }
        }
        Self::Matrix { k, p, scores: self.scores().to_vec() }
    }

    /// Returns the scores after penalties; empty when the judge gave none.
    pub(crate) fn scores(&self) -> &[f64] {
        match self {
            Self::Scores { scores, .. } | Self::Matrix { scores, .. } => scores,
        }
    }
}

fn penalty(answer: &Completion, rules: &PairingRules) -> f64 {
    if answer.finish == Finish::Eos { 0.0 } else { rules.missing_eos_penalty }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Distance from 0 and 1 at which a probability is taken for a certainty: log-odds of 36.7, where a sigmoid rounds to 1.
const CERTAIN: f64 = f64::EPSILON / 2.0;

/// Moves a probability by `by` in log-odds; a move of 0 changes nothing.
fn shift_logit(p: f64, by: f64) -> f64 {
    if by == 0.0 {
        return p;
    }
    let p = p.clamp(CERTAIN, 1.0 - CERTAIN);
    sigmoid(p.ln() - (-p).ln_1p() + by)
}
