//! Which of many answers are worth a judge's time: those that stand for all and are unlike each other, or those between which the policy
//! has not decided.

use std::collections::BTreeSet;

/// Chooses `k` of N answers, ascending, by annotation-efficient preference optimization, AEPO (Jinnai and Honda,
/// <https://arxiv.org/abs/2405.13541>): the subset S that maximises
/// `Σ_{i∈S} Σ_{j≠i} sim_ij / ((N−1)·k) − Σ_{i≠j∈S} sim_ij / (k·(k−1))`, greedily and then by the best exchange of one answer until none helps.
///
/// The authors' code leaves the diagonal in its first evaluation; here an answer is never compared with itself.
///
/// # Arguments
/// * `similarity` - in [0, 1], symmetric, N x N by rows; the diagonal is not read.
/// * `k` - at least 2; with N or more all answers are kept.
pub fn aepo(similarity: &[Vec<f64>], k: usize) -> Vec<usize> {
    let n = similarity.len();
    if k >= n {
        return (0..n).collect();
    }
    let mut chosen: Vec<usize> = Vec::with_capacity(k);
    while chosen.len() < k {
        let with = |i: usize| value(similarity, &[chosen.as_slice(), &[i]].concat(), k);
        let rest = (0..n).filter(|i| !chosen.contains(i));
        let best = rest.max_by(|&i, &j| with(i).total_cmp(&with(j)).then(j.cmp(&i)));
        chosen.extend(best);
    }
    loop {
        let now = value(similarity, &chosen, k);
        let outside: Vec<usize> = (0..n).filter(|i| !chosen.contains(i)).collect();
        let exchanges = (0..k).flat_map(|place| outside.iter().map(move |&i| (place, i)));
        let exchanged = |(place, i): (usize, usize)| {
            let mut other = chosen.clone();
            other[place] = i;
            (value(similarity, &other, k), other)
        };
        match exchanges.map(exchanged).max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((better, other)) if better > now + 1e-12 => chosen = other,
            _ => break,
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Computes AEPO's objective of a subset with λ = 1, as a share of `k` answers.
fn value(similarity: &[Vec<f64>], subset: &[usize], k: usize) -> f64 {
    let n = similarity.len() as f64;
    let others = |i: usize| (0..similarity.len()).filter(move |&j| j != i);
    let all: f64 = subset.iter().flat_map(|&i| others(i).map(move |j| similarity[i][j])).sum();
    let own: f64 =
        subset.iter().flat_map(|&i| subset.iter().filter(move |&&j| j != i).map(move |&j| similarity[i][j])).sum();
    let k = k as f64;
    all / ((n - 1.0) * k) - own / (k * (k - 1.0))
}

/// Computes how alike two answers are: shared bigrams of tokens over all of theirs (Jaccard), in [0, 1].
pub fn similarity(a: &[u32], b: &[u32]) -> f64 {
    let bigrams = |ids: &[u32]| -> BTreeSet<(u32, Option<u32>)> {
        (0..ids.len()).map(|at| (ids[at], ids.get(at + 1).copied())).collect()
    };
    let (a, b) = (bigrams(a), bigrams(b));
    let all = a.union(&b).count();
    if all == 0 { 1.0 } else { a.intersection(&b).count() as f64 / all as f64 }
}

/// Chooses `k` of N answers, ascending: those whose implicit rewards span the least, which for two is the pair of the smallest implicit margin
/// (<https://arxiv.org/abs/2406.17312>).
///
/// # Arguments
/// * `rewards` - log π − log π_ref of each answer in nats; their scale β changes no choice.
/// * `ids` - tokens of each answer; of equal ones only the first is chosen while enough others are left.
/// * `k` - with N or more all answers are kept.
pub fn closest(rewards: &[f64], ids: &[&[u32]], k: usize) -> Vec<usize> {
    let n = rewards.len();
    if k >= n {
        return (0..n).collect();
    }
    let unlike: Vec<usize> = (0..n).filter(|&i| !ids[..i].contains(&ids[i])).collect();
    let mut order = if unlike.len() >= k { unlike } else { (0..n).collect() };
    order.sort_by(|&i, &j| rewards[i].total_cmp(&rewards[j]).then(i.cmp(&j)));
    let span = |window: &[usize]| rewards[window[window.len() - 1]] - rewards[window[0]];
    let best = order.windows(k.max(1)).min_by(|a, b| span(a).total_cmp(&span(b)));
    let mut chosen = best.map(<[usize]>::to_vec).unwrap_or_default();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_subset_of_the_golden_matrix_is_found() {
        let m = [[1.0, 0.9, 0.2, 0.1], [0.9, 1.0, 0.3, 0.2], [0.2, 0.3, 1.0, 0.8], [0.1, 0.2, 0.8, 1.0]];
        let m: Vec<Vec<f64>> = m.iter().map(|row| row.to_vec()).collect();
        let golden = [
            ([0, 1], -0.466_666_666_666_666_7),
            ([0, 2], 0.216_666_666_666_666_67),
            ([0, 3], 0.283_333_333_333_333_3),
            ([1, 2], 0.15),
            ([1, 3], 0.216_666_666_666_666_67),
            ([2, 3], -0.4),
        ];
        for (subset, expected) in golden {
            assert!((value(&m, &subset, 2) - expected).abs() < 1e-12, "{subset:?}");
        }
        assert_eq!(aepo(&m, 2), [0, 3]);
        assert_eq!(aepo(&m, 4), [0, 1, 2, 3]);
        assert_eq!(aepo(&m, 9), [0, 1, 2, 3]);
    }

    #[test]
    fn one_of_each_kind_is_kept() {
        let answers: [&[u32]; 5] = [&[1, 2, 3, 4], &[1, 2, 3, 5], &[9, 8, 7, 6], &[9, 8, 7, 5], &[1, 2, 3, 4]];
        let table: Vec<Vec<f64>> = answers.iter().map(|a| answers.iter().map(|b| similarity(a, b)).collect()).collect();
        let kept = aepo(&table, 2);
        assert!([0, 1, 4].contains(&kept[0]) && [2, 3].contains(&kept[1]), "{kept:?}");
        assert_eq!(similarity(&[1, 2], &[1, 2]), 1.0);
        assert_eq!(similarity(&[1, 2], &[3, 4]), 0.0);
        assert_eq!(similarity(&[], &[]), 1.0);
    }

    #[test]
    fn the_pair_of_the_smallest_margin_is_found_among_unlike_answers() {
        let ids: [&[u32]; 5] = [&[1], &[2], &[3], &[1], &[4]];
        let rewards = [0.0, 5.0, 4.5, 0.0, -0.7];
        assert_eq!(closest(&rewards, &ids, 2), [1, 2]);
        assert_eq!(closest(&rewards, &ids, 3), [0, 1, 2], "they span 5.0, the others 5.2");
        assert_eq!(closest(&rewards, &ids, 5), [0, 1, 2, 3, 4]);
        // Every pair by hand: no other is closer.
        let all = (0..5).flat_map(|i| (0..i).map(move |j| (i, j))).filter(|&(i, j)| ids[i] != ids[j]);
        let least = all.map(|(i, j)| (rewards[i] - rewards[j]).abs()).fold(f64::INFINITY, f64::min);
        assert_eq!(least, 0.5);
        let same: [&[u32]; 3] = [&[1], &[1], &[1]];
        assert_eq!(closest(&[1.0, 1.0, 1.0], &same, 2), [0, 1]);
    }
}
