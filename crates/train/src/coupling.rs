//! What couples the examples of a step: ranks and averages over all of it, from the policy as it is before the update.
//!
//! They are computed once a step and not once a micro-batch, so that micro-batches change nothing.

use joust_losses::{PairLoss, SingleLoss};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Ranks, Result, single,
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

/// A pair as the others of its step see it: chosen and rejected answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PairFacts {
    /// log π, in nats.
    policy: [f64; 2],
    /// log π_ref, in nats.
    reference: [f64; 2],
    /// The judge's scores.
    scores: [f64; 2],
}

/// Computes what couples the micro-batches of a step, over all ranks.
///
/// # Arguments
/// * `own` - log π of the answers of a micro-batch.
/// * `foreign` - log π of the answers that [`Prepared::foreign`] holds.
pub(crate) fn couple<B: AsRef<[Prepared]>>(
    objective: &Objective,
    step: &[B],
    (own, foreign): (AnswerSums<'_>, AnswerSums<'_>),
    ranks: &Ranks,
) -> Result<Vec<Coupled>> {
    let all = |sums: AnswerSums<'_>| -> Result<Vec<f64>> {
        Ok(step.iter().map(|batch| sums(batch.as_ref())).collect::<Result<Vec<_>>>()?.concat())
    };
    let prepared = || step.iter().flat_map(AsRef::as_ref);
    let same = |coupled: Coupled| Ok(vec![coupled; step.len()]);
    match objective {
        Objective::Pair(loss) if loss.needs_matching() => {
            let facts = all(own)?.chunks_exact(2).zip(prepared()).map(|(policy, p)| pair_facts(policy, p)).collect();
            let (facts, mine) = ranks.join(facts)?;
            let matched = if matches!(loss, PairLoss::Dove { .. }) { rotated(&facts) } else { sorted(loss, &facts) };
            let mut mine = matched[mine].iter();
            let mut cut = |batch: &B| mine.by_ref().take(batch.as_ref().len()).copied().unzip();
            Ok(step
                .iter()
                .map(&mut cut)
                .map(|(matched, signs)| Coupled { matched, signs, ..Coupled::default() })
                .collect())
        }
        Objective::Single(SingleLoss::Kto { .. }) => {
            let reference = prepared().flat_map(|prepared| &prepared.foreign);
            let gaps =
                all(foreign)?.into_iter().zip(reference).map(|(policy, foreign)| policy - f64::from(foreign.reference));
            let (gaps, _) = ranks.join(gaps.collect())?;
            if gaps.is_empty() {
                let id = prepared().next().map(|p| p.example.id.to_string());
                let problem = "kto compares prompts with the answers of other prompts, and the step has one prompt only; raise \
                               learner.prompts_per_step";
                return Err(Error::Example { id: id.unwrap_or_default(), problem: problem.into() });
            }
            same(Coupled { baseline: mean(&gaps).max(0.0), ..Coupled::default() })
        }
        Objective::Single(SingleLoss::BcoUnpaired { beta }) => {
            let rewards = all(own)?.into_iter().zip(prepared().flat_map(reference_sums));
            let (rewards, _) = ranks.join(rewards.map(|(policy, reference)| beta * (policy - reference)).collect())?;
            same(Coupled { baseline: mean(&rewards), ..Coupled::default() })
        }
        Objective::Single(SingleLoss::Dro { .. }) => {
            let (rewards, _) = ranks.join(prepared().flat_map(|p| single::rewards(&p.example)).collect())?;
            same(Coupled { moments: moments(&rewards), ..Coupled::default() })
        }
        _ => same(Coupled::default()),
    }
}

fn pair_facts(policy: &[f64], prepared: &Prepared) -> PairFacts {
    let reference = reference_sums(prepared);
    let score = |side: usize| prepared.example.answers[side].score.unwrap_or_default();
    PairFacts { policy: [policy[0], policy[1]], reference: [reference[0], reference[1]], scores: [score(0), score(1)] }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Returns mean and standard deviation; a deviation of 0 becomes 1.
fn moments(values: &[f64]) -> [f64; 2] {
    let mean = mean(values);
    let deviation =
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64).sqrt();
    [mean, if deviation > 0.0 { deviation } else { 1.0 }]
}

/// Returns log π_ref of the answers of an example.
fn reference_sums(prepared: &Prepared) -> Vec<f64> {
    prepared.known.iter().map(|known| known.reference.iter().map(|value| f64::from(*value)).sum()).collect()
}

/// What each answer of a pair is matched with, and who is better: see [`Coupled`].
type Match = ([f64; 2], [f64; 2]);

/// Sorts both distributions over the step and tells each answer what stands at its rank on the other side.
fn sorted(loss: &PairLoss, facts: &[PairFacts]) -> Vec<Match> {
    let sides = |fact: &PairFacts| {
        let PairFacts { policy: p, reference: r, .. } = fact;
        if matches!(loss, PairLoss::Aot { .. }) { (p[0] - p[1], r[0] - r[1]) } else { (p[0] - r[0], p[1] - r[1]) }
    };
    let (upper, lower): (Vec<f64>, Vec<f64>) = facts.iter().map(sides).unzip();
    let (of_upper, of_lower) = (at_rank_of(&upper, &lower), at_rank_of(&lower, &upper));
    of_upper.into_iter().zip(of_lower).map(|(a, b)| ([a, b], [0.0; 2])).collect()
}

/// Lets the chosen answer of each pair meet the rejected one of the next, the last that of the first.
fn rotated(facts: &[PairFacts]) -> Vec<Match> {
    let count = facts.len();
    let h = |i: usize, side: usize| facts[i].policy[side] - facts[i].reference[side];
    let sign = |i: usize, j: usize| match facts[i].scores[0].total_cmp(&facts[j].scores[1]) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Less => -1.0,
    };
    let around = |i: usize| ((i + 1) % count, (i + count - 1) % count);
    (0..count)
        .map(|i| {
            let (next, last) = around(i);
            ([h(next, 1), h(last, 0)], [sign(i, next), sign(last, i)])
        })
        .collect()
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
