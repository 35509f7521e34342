//! How much each example counts: pure functions of what is known when a step is planned.

use joust_core::{Example, Target};
use serde::{Deserialize, Serialize};

/// What an example's loss is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// σ(s⁺ − s⁻), the judge's probability where there are no scores: clear pairs count more (OPTune,
    /// <https://arxiv.org/abs/2406.07657>; the shape is ours).
    ScoreGap,
    /// `decay^age`: an example loses this share with each policy version since its answers.
    Staleness {
        /// In (0, 1].
        decay: f64,
    },
}

/// Computes the product of an example's weights; 1 without any.
///
/// # Arguments
/// * `age` - policy versions between the oldest of its answers and the policy that trains.
pub fn weight_of(weights: &[Weight], example: &Example, age: u64) -> f64 {
    let one = |weight: &Weight| match *weight {
        Weight::ScoreGap => score_gap(example),
        Weight::Staleness { decay } => decay.powi(i32::try_from(age).unwrap_or(i32::MAX)),
    };
    weights.iter().map(one).product()
}

fn score_gap(example: &Example) -> f64 {
    match (&example.target, example.answers.as_slice()) {
        (Target::Pair { p, .. }, [chosen, rejected]) => match (chosen.score, rejected.score) {
            (Some(better), Some(worse)) => 1.0 / (1.0 + (worse - better).exp()),
            _ => *p,
        },
        _ => 1.0,
    }
}
