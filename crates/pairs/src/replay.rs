//! Which applied examples a step trains again: pure choices over a pool, independent of the pool's order.

use joust_core::{
    Example, RecordId, Target,
    rng::{Stream, bits},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which examples of the pool come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Those applied last.
    Recent,
    /// Any, with equal probability and without repetition.
    Uniform,
    /// Those with the smallest margin: the least settled.
    Margin,
}

/// One applied example that may be trained again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Id of the example.
    pub id: RecordId,
    /// Step that applied it first.
    pub applied_step: u64,
    /// How clearly chosen beats rejected, for [`Order::Margin`]; see [`margin_of`] for the judge's own.
    pub margin: f64,
}

/// Computes how many replayed examples join `fresh` ones so that they make `ratio` of the step.
///
/// `k = fresh · ratio / (1 − ratio)`, rounded to the nearest; the pool may hold fewer.
///
/// # Errors
/// [`Error::Setting`] unless `ratio` is in [0, 1).
pub fn replay_count(fresh: usize, ratio: f64) -> Result<usize> {
    if !(0.0..1.0).contains(&ratio) {
        let expected = "at least 0 and below 1: the share of a step's examples that are replayed";
        return Err(Error::Setting { name: "pairing.replay.ratio", value: ratio, expected });
    }
    Ok((fresh as f64 * ratio / (1.0 - ratio)).round() as usize)
}

/// Chooses up to `k` ids of the pool, best first in `order`; valid only if the pool holds each id once.
///
/// Equal entries are ordered by keyed bits of (seed, step, id), so that neither arrival nor the id's value prefers one.
pub fn choose(pool: &[Entry], order: Order, k: usize, (seed, step): (u64, u64)) -> Vec<RecordId> {
    let lottery = |entry: &Entry| (ticket(entry.id, seed, step), entry.id);
    let mut ranked: Vec<&Entry> = pool.iter().collect();
    ranked.sort_by(|a, b| {
        let by_order = match order {
            Order::Recent => b.applied_step.cmp(&a.applied_step),
            Order::Uniform => std::cmp::Ordering::Equal,
            Order::Margin => a.margin.total_cmp(&b.margin),
        };
        by_order.then_with(|| lottery(a).cmp(&lottery(b)))
    });
    ranked.into_iter().take(k).map(|entry| entry.id).collect()
}

/// Returns the ids that a pool of at most `capacity` examples forgets, the oldest first.
pub fn evicted(pool: &[Entry], capacity: usize) -> Vec<RecordId> {
    let mut by_age: Vec<&Entry> = pool.iter().collect();
    by_age.sort_by_key(|entry| (entry.applied_step, entry.id));
    by_age.iter().take(pool.len().saturating_sub(capacity)).map(|entry| entry.id).collect()
}

/// Returns how clearly the judge preferred the chosen answer: the score difference, or the log-odds of `p` without scores; of a
/// group those of its highest win rate.
///
/// Infinite for a hard label without scores, so that [`Order::Margin`] then draws uniformly.
pub fn margin_of(example: &Example) -> f64 {
    let p = match &example.target {
        Target::Pair { p, .. } | Target::Opponent { p } => *p,
        Target::Group { win_rates } => win_rates.iter().copied().fold(0.5, f64::max),
    };
    match example.answers.as_slice() {
        [chosen, rejected] => match (chosen.score, rejected.score) {
            (Some(chosen), Some(rejected)) => chosen - rejected,
            _ => p.ln() - (-p).ln_1p(),
        },
        _ => p.ln() - (-p).ln_1p(),
    }
}

/// Returns the keyed draw of an example: the id names the place, the step the round.
fn ticket(id: RecordId, seed: u64, step: u64) -> u64 {
    let mut words = id.as_bytes().chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut word = || words.next().unwrap_or_default();
    // The generator keeps 52 bits of a position; step and id each get a block of their own instead of sharing them.
    let round = bits(seed, Stream::Replay, step, (0, 0));
    bits(round, Stream::Replay, u64::from(word()), (word(), word()))
}
