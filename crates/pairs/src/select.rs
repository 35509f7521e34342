//! Which two answers meet: indices of candidates, before filters and order.

use joust_core::rng::{Stream, bits, uniform};

use crate::{PairingRules, Select, beliefs::Beliefs};

/// Place of the pairing draw in its stream; synthetic judges draw at other places of it.
const PAIRING_DRAW: (u32, u32) = (u32::MAX, 0);

/// Answers that the sweet spot looks for the weakest among.
const SWEET_SPOT: usize = 5;

/// Returns the pairs of `eligible` answers that the rules contrast at a position; empty with fewer than two.
pub(crate) fn pairs(rules: &PairingRules, beliefs: &Beliefs, eligible: &[usize], position: u64) -> Vec<(usize, usize)> {
    let (Some(best), true) = (strongest(beliefs, eligible), eligible.len() >= 2) else { return Vec::new() };
    let key = (rules.seed, position);
    match rules.select {
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
        Select::AllPairs => every_two(eligible).collect(),
        Select::Rejection => {
            let sure =
                |&(i, j): &(usize, usize)| beliefs.probability(i, j).max(beliefs.probability(j, i)) > rules.threshold;
            every_two(eligible).filter(sure).collect()
        }
        Select::SweetSpot => {
            let mut drawn: Vec<usize> = eligible.iter().copied().filter(|&i| i != best).collect();
            drawn.sort_by_key(|&i| bits(key.0, Stream::Judge, key.1, (PAIRING_DRAW.0, 1 + i as u32)));
            drawn.truncate(SWEET_SPOT);
            let weakest = drawn.into_iter().min_by(|&i, &j| beliefs.strength(i).total_cmp(&beliefs.strength(j)));
            weakest.map(|weakest| (best, weakest)).into_iter().collect()
        }
        Select::Ranked => {
            let ranked = ranked(beliefs, eligible);
            (0..ranked.len() / 2).map(|rank| (ranked[rank], ranked[ranked.len() - 1 - rank])).collect()
        }
        Select::MaxMax => ranked(beliefs, eligible).get(..2).map(|two| (two[0], two[1])).into_iter().collect(),
        Select::Curriculum => {
            let ranked = ranked(beliefs, eligible);
            let stages = ranked.len() - 1;
            let stage = (position as usize * stages / rules.positions.max(1) as usize).min(stages - 1);
            vec![(best, ranked[ranked.len() - 1 - stage])]
        }
        Select::Opponent | Select::Single | Select::List => Vec::new(), // no pairs: see `targets`
    }
}

/// Returns every two of the answers, the earlier one first.
fn every_two(eligible: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    eligible.iter().enumerate().flat_map(|(at, &i)| eligible[at + 1..].iter().map(move |&j| (i, j)))
}

/// Returns the answers, the strongest first; equal ones by place.
fn ranked(beliefs: &Beliefs, eligible: &[usize]) -> Vec<usize> {
    let mut ranked = eligible.to_vec();
    ranked.sort_by(|&i, &j| beliefs.strength(j).total_cmp(&beliefs.strength(i)).then(i.cmp(&j)));
    ranked
}

/// Returns the first of the strongest answers.
fn strongest(beliefs: &Beliefs, eligible: &[usize]) -> Option<usize> {
    eligible.iter().copied().min_by(|&i, &j| beliefs.strength(j).total_cmp(&beliefs.strength(i)).then(i.cmp(&j)))
}
