//! Which two answers meet: indices of candidates, before filters and order.

use joust_core::rng::{Stream, uniform};

use crate::{Select, beliefs::Beliefs};

/// Place of the pairing draw in its stream; synthetic judges draw at other places of it.
const PAIRING_DRAW: (u32, u32) = (u32::MAX, 0);

/// Returns the pairs of `eligible` answers that `select` contrasts; empty with fewer than two.
///
/// `key` is (run seed, position of the prompt).
pub(crate) fn pairs(select: Select, beliefs: &Beliefs, eligible: &[usize], key: (u64, u64)) -> Vec<(usize, usize)> {
    let (Some(best), true) = (strongest(beliefs, eligible), eligible.len() >= 2) else { return Vec::new() };
    match select {
        Select::BestWorst | Select::WinRate => {
            // The last of the weakest, so that it differs from the first of the strongest even when all are equal.
            let rest = eligible.iter().copied().filter(|&i| i != best);
            let worst = rest.min_by(|&i, &j| beliefs.strength(i).total_cmp(&beliefs.strength(j)).then(j.cmp(&i)));
            worst.map(|worst| (best, worst)).into_iter().collect()
        }
        Select::MaxRandom => {
            let rest: Vec<usize> = eligible.iter().copied().filter(|&i| i != best).collect();
            let draw = uniform(key.0, Stream::Judge, key.1, PAIRING_DRAW);
            vec![(best, rest[(draw * rest.len() as f64) as usize])]
        }
        Select::AllPairs => {
            let after = |at: usize| eligible[at + 1..].iter().copied();
            eligible.iter().enumerate().flat_map(|(at, &i)| after(at).map(move |j| (i, j))).collect()
        }
        Select::Opponent | Select::Single | Select::List => Vec::new(), // no pairs: see `targets`
    }
}

/// Returns the first of the strongest answers.
fn strongest(beliefs: &Beliefs, eligible: &[usize]) -> Option<usize> {
    eligible.iter().copied().min_by(|&i, &j| beliefs.strength(j).total_cmp(&beliefs.strength(i)).then(i.cmp(&j)))
}
