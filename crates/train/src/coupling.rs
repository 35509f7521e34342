//! What couples the examples of a step: ranks and averages over all of it, from the policy as it is before the update.
//!
//! They are computed once a step and not once a micro-batch, so that micro-batches change nothing.

use joust_losses::{PairLoss, SingleLoss};

use crate::{
    Error, Result, single,
    trainer::{Objective, Prepared},
};

/// A micro-batch's share of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Coupled {
    /// What each answer of a pair is matched with, in nats, pair after pair: see [`joust_losses::aot_loss`].
    pub(crate) matched: Vec<[f64; 2]>,
    /// Whether each answer is better than that: 1, −1, or 0 for neither; see [`joust_losses::dove_loss`].
    pub(crate) signs: Vec<[f64; 2]>,
    /// The average that single answers are compared with.
    pub(crate) baseline: f64,
    /// Mean and standard deviation of the step's rewards.
    pub(crate) moments: [f64; 2],
}

/// log π of each answer of a micro-batch, in nats.
pub(crate) type AnswerSums<'a> = &'a dyn Fn(&[Prepared]) -> Result<Vec<f64>>;

/// Computes what couples the micro-batches of a step.
///
/// # Arguments
/// * `own` - log π of the answers of a micro-batch.
/// * `foreign` - log π of the answers that [`Prepared::foreign`] holds.
pub(crate) fn couple<B: AsRef<[Prepared]>>(
    objective: &Objective,
    step: &[B],
    own: AnswerSums<'_>,
    foreign: AnswerSums<'_>,
) -> Result<Vec<Coupled>> {
    let blank = || vec![Coupled::default(); step.len()];
    let all =
        |sums: AnswerSums<'_>| -> Result<Vec<Vec<f64>>> { step.iter().map(|batch| sums(batch.as_ref())).collect() };
    match objective {
        Objective::Pair(loss) if loss.needs_matching() => Ok(matched(loss, step, &all(own)?)),
        Objective::Single(SingleLoss::Kto { .. }) => {
            let (mut sum, mut count) = (0.0, 0usize);
            for (batch, policy) in step.iter().zip(all(foreign)?) {
                let reference = batch.as_ref().iter().flat_map(|prepared| &prepared.foreign);
                for (policy, foreign) in policy.into_iter().zip(reference) {
                    sum += policy - f64::from(foreign.reference);
                    count += 1;
                }
            }
            if count == 0 {
                let id = step.iter().flat_map(AsRef::as_ref).next().map(|p| p.example.id.to_string());
                let problem = "kto compares prompts with the answers of other prompts, and the step has one prompt only; raise \
                               learner.prompts_per_step";
                return Err(Error::Example { id: id.unwrap_or_default(), problem: problem.into() });
            }
            Ok(vec![Coupled { baseline: (sum / count as f64).max(0.0), ..Coupled::default() }; step.len()])
        }
        Objective::Single(SingleLoss::BcoUnpaired { beta }) => {
            let policy: Vec<f64> = all(own)?.concat();
            let reference = reference_sums(step).into_iter().flatten();
            let total: f64 = policy.iter().zip(reference).map(|(policy, reference)| beta * (policy - reference)).sum();
            let baseline = total / policy.len().max(1) as f64;
            Ok(vec![Coupled { baseline, ..Coupled::default() }; step.len()])
        }
        Objective::Single(SingleLoss::Dro { .. }) => {
            let examples = step.iter().flat_map(AsRef::as_ref).map(|prepared| &prepared.example);
            let moments = moments(&examples.flat_map(single::rewards).collect::<Vec<_>>());
            Ok(vec![Coupled { moments, ..Coupled::default() }; step.len()])
        }
        _ => Ok(blank()),
    }
}

/// Returns mean and standard deviation; a deviation of 0 becomes 1.
fn moments(values: &[f64]) -> [f64; 2] {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    [mean, if deviation > 0.0 { deviation } else { 1.0 }]
}

/// Returns log π_ref of the answers of each micro-batch.
fn reference_sums<B: AsRef<[Prepared]>>(step: &[B]) -> Vec<Vec<f64>> {
    let sum = |known: &crate::Known| known.reference.iter().map(|value| f64::from(*value)).sum();
    step.iter().map(|batch| batch.as_ref().iter().flat_map(|prepared| &prepared.known).map(sum).collect()).collect()
}

/// Sorts both distributions over the step and tells each answer what stands at its rank on the other side.
fn matched<B>(loss: &PairLoss, step: &[B], policy: &[Vec<f64>]) -> Vec<Coupled>
where
    B: AsRef<[Prepared]>,
{
    let reference = reference_sums(step);
    let pairs = |sums: &[Vec<f64>]| -> Vec<[f64; 2]> {
        sums.iter().flat_map(|batch| batch.chunks_exact(2).map(|pair| [pair[0], pair[1]])).collect()
    };
    let (policy, reference) = (pairs(policy), pairs(&reference));
    if let PairLoss::Dove { .. } = loss {
        return rotated(step, &policy, &reference);
    }
    let (upper, lower): (Vec<f64>, Vec<f64>) = if matches!(loss, PairLoss::Aot { .. }) {
        policy.iter().zip(&reference).map(|(p, r)| (p[0] - p[1], r[0] - r[1])).unzip()
    } else {
        policy.iter().zip(&reference).map(|(p, r)| (p[0] - r[0], p[1] - r[1])).unzip()
    };
    let (of_upper, of_lower) = (at_rank_of(&upper, &lower), at_rank_of(&lower, &upper));
    let mut rest = of_upper.into_iter().zip(of_lower).map(|(a, b)| [a, b]);
    let share =
        |batch: &B| Coupled { matched: rest.by_ref().take(batch.as_ref().len()).collect(), ..Coupled::default() };
    step.iter().map(share).collect()
}

/// Lets the chosen answer of each pair meet the rejected one of the next, the last that of the first.
fn rotated<B: AsRef<[Prepared]>>(step: &[B], policy: &[[f64; 2]], reference: &[[f64; 2]]) -> Vec<Coupled> {
    let examples: Vec<_> = step.iter().flat_map(AsRef::as_ref).map(|prepared| &prepared.example).collect();
    let count = examples.len();
    let h = |i: usize, side: usize| policy[i][side] - reference[i][side];
    let score = |i: usize, side: usize| examples[i].answers[side].score.unwrap_or_default();
    let sign = |i: usize, j: usize| match score(i, 0).total_cmp(&score(j, 1)) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Less => -1.0,
    };
    let mut next = 0..count;
    let mut share = |batch: &B| {
        let own: Vec<usize> = next.by_ref().take(batch.as_ref().len()).collect();
        let around = |i: usize| ((i + 1) % count, (i + count - 1) % count);
        Coupled {
            matched: own.iter().map(|&i| [h(around(i).0, 1), h(around(i).1, 0)]).collect(),
            signs: own.iter().map(|&i| [sign(i, around(i).0), sign(around(i).1, i)]).collect(),
            ..Coupled::default()
        }
    };
    step.iter().map(&mut share).collect()
}

/// Returns for each of `values` what stands at its rank in `others`; equal values rank by place.
fn at_rank_of(values: &[f64], others: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]).then(i.cmp(&j)));
    let mut sorted = others.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut found = vec![0.0; values.len()];
    for (rank, i) in order.into_iter().enumerate() {
        found[i] = sorted[rank];
    }
    found
}
