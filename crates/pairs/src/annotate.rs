//! Which of many answers are worth a judge's time: representative of all, and unlike each other.
//!
//! Annotation-efficient preference optimization, AEPO (Jinnai and Honda, <https://arxiv.org/abs/2405.13541>).

use std::collections::BTreeSet;

/// Chooses `k` of N answers, ascending: the subset S that maximises
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
}
