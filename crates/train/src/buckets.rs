//! Which rows of each weight each rank keeps, and where they lie in the buckets that travel between ranks.
//!
//! "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", Rajbhandari et al., <https://arxiv.org/abs/1910.02054>, stage 2: masters,
//! gradients and moments of a row are with one rank, the weights that the model computes with are with all.

use std::{collections::BTreeMap, ops::Range};

/// Rows of one weight that one rank keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The weight.
    pub(crate) name: String,
    /// Its rows.
    pub(crate) rows: Range<i64>,
    /// Who keeps them.
    pub(crate) rank: usize,
    /// Where they begin in the bucket, in elements.
    pub(crate) at: i64,
    /// How many elements they are.
    pub(crate) elements: i64,
}

/// Weights whose gradients travel together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bucket {
    /// Matrices that the model reads, by key.
    pub(crate) matrices: Vec<String>,
    /// What they are made of, rank after rank.
    pub(crate) pieces: Vec<Piece>,
    /// Where each rank's part begins, and the end of the last.
    pub(crate) begins: Vec<i64>,
    /// Whether all parts are of one length: shorter ones are padded.
    pub(crate) even: bool,
}

/// A matrix that the model reads, with the weights that it stacks: names, rows, and elements of a row.
pub(crate) type Stack = (String, Vec<(String, i64, i64)>);

/// How weights are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Ranks.
    pub(crate) ranks: usize,
    /// Elements of the smallest bucket.
    pub(crate) smallest: i64,
    /// Whether a weight stays whole with one rank, for optimizers that look at all of it.
    pub(crate) whole: bool,
}

/// Returns where in the backward pass a matrix comes: the head first, then the layers from the last on, then the embedding.
fn place(key: &str) -> i64 {
    if let Some(rest) = key.split("model.layers.").nth(1) {
        let layer = rest.split('.').next().and_then(|layer| layer.parse::<i64>().ok());
        return -layer.unwrap_or_default();
    }
    if key.contains("model.embed") { i64::MAX } else { i64::MIN }
}

/// Cuts all weights into buckets in the order of the backward pass.
///
/// A layer with fewer elements than `cut.smallest` shares its bucket with the next.
pub(crate) fn buckets(stacks: &[Stack], cut: Cut) -> Vec<Bucket> {
    let mut order: Vec<&Stack> = stacks.iter().collect();
    order.sort_by_key(|(key, _)| place(key));
    let mut cuts: Vec<Vec<&Stack>> = vec![Vec::new()];
    let mut elements = 0;
    for (at, stack) in order.iter().enumerate() {
        let next_layer = at > 0 && place(&order[at - 1].0) != place(&stack.0);
        if next_layer && elements >= cut.smallest {
            cuts.push(Vec::new());
            elements = 0;
        }
        elements += stack.1.iter().map(|(_, rows, width)| rows * width).sum::<i64>();
        if let Some(last) = cuts.last_mut() {
            last.push(stack);
        }
    }
    let mut loads = vec![0; cut.ranks];
    cuts.into_iter().map(|stacks| bucket(&stacks, cut, &mut loads)).collect()
}

fn bucket(stacks: &[&Stack], cut: Cut, loads: &mut [i64]) -> Bucket {
    let mut parts: Vec<Vec<Piece>> = vec![Vec::new(); cut.ranks];
    for (name, rows, width) in stacks.iter().flat_map(|(_, weights)| weights) {
        let mut give = |rank: usize, rows: Range<i64>| {
            let elements = (rows.end - rows.start) * width;
            parts[rank].push(Piece { name: name.clone(), rows, rank, at: 0, elements });
        };
        if cut.whole {
            let least = (0..cut.ranks).min_by_key(|rank| loads[*rank]).unwrap_or_default();
            loads[least] += rows * width;
            give(least, 0..*rows);
            continue;
        }
        let begin = |rank: usize| rows * rank as i64 / cut.ranks as i64;
        (0..cut.ranks).for_each(|rank| give(rank, begin(rank)..begin(rank + 1)));
    }
    let lengths: Vec<i64> = parts.iter().map(|part| part.iter().map(|piece| piece.elements).sum()).collect();
    let longest = lengths.iter().copied().max().unwrap_or_default();
    let mut begins = vec![0];
    for length in &lengths {
        begins.push(begins[begins.len() - 1] + if cut.whole { *length } else { longest });
    }
    for (part, begin) in parts.iter_mut().zip(&begins) {
        let mut at = *begin;
        for piece in part {
            piece.at = at;
            at += piece.elements;
        }
    }
    let matrices = stacks.iter().map(|(key, _)| key.clone()).collect();
    Bucket { matrices, pieces: parts.into_iter().flatten().collect(), begins, even: !cut.whole }
}

impl Bucket {
    /// Returns the elements of the whole bucket, padding included.
    pub(crate) fn elements(&self) -> i64 {
        self.begins[self.begins.len() - 1]
    }

    /// Returns what one rank keeps.
    pub(crate) fn of(&self, rank: usize) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |piece| piece.rank == rank)
    }
}

/// Returns the rows of each weight that one rank keeps.
pub(crate) fn rows_of(buckets: &[Bucket], rank: usize) -> BTreeMap<String, Range<i64>> {
    let none = buckets.iter().flat_map(|bucket| &bucket.pieces).map(|piece| (piece.name.clone(), 0..0));
    let own = buckets.iter().flat_map(|bucket| bucket.of(rank)).map(|piece| (piece.name.clone(), piece.rows.clone()));
    none.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn stacks(sizes: &[(i64, i64)]) -> Vec<Stack> {
        let stack = |(i, (rows, width)): (usize, &(i64, i64))| {
            let key = match i {
                0 => "model.embed_tokens.weight".to_owned(),
                1 => "model.norm.weight".to_owned(),
                _ => format!("model.layers.{}.stack{i}.weight", i / 3),
            };
            (key.clone(), vec![(format!("{key}.a"), *rows, *width), (format!("{key}.b"), rows + 1, *width)])
        };
        sizes.iter().enumerate().map(stack).collect()
    }

    proptest! {
        #[test]
        fn every_row_is_with_one_rank_and_nothing_overlaps(
            sizes in prop::collection::vec((1i64..9, 1i64..5), 1..12),
            ranks in 1usize..6,
            smallest in 0i64..60,
            whole: bool,
        ) {
            let stacks = stacks(&sizes);
            let cut = Cut { ranks, smallest, whole };
            let buckets = buckets(&stacks, cut);
            let mut seen: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
            for bucket in &buckets {
                let mut end = 0;
                for piece in &bucket.pieces {
                    prop_assert!(piece.at >= end && piece.at >= bucket.begins[piece.rank]);
                    end = piece.at + piece.elements;
                    prop_assert!(end <= bucket.begins[piece.rank + 1]);
                    seen.entry(&piece.name).or_default().extend(piece.rows.clone());
                }
                if bucket.even {
                    let part = bucket.elements() / ranks as i64;
                    prop_assert!(bucket.begins.windows(2).all(|pair| pair[1] - pair[0] == part));
                }
            }
            for (name, rows, _) in stacks.iter().flat_map(|(_, weights)| weights) {
                let mut found = seen.remove(name.as_str()).unwrap_or_default();
                found.sort_unstable();
                prop_assert_eq!(found, (0..*rows).collect::<Vec<_>>());
            }
            let keys: Vec<&String> = buckets.iter().flat_map(|bucket| &bucket.matrices).collect();
            prop_assert_eq!(keys.len(), stacks.len());
        }
    }

    #[test]
    fn the_head_comes_first_and_the_embedding_last() {
        let keys =
            ["model.embed_tokens.weight", "model.layers.0.x.weight", "model.layers.10.x.weight", "lm_head.weight"];
        let stacks: Vec<Stack> = keys.iter().map(|key| ((*key).to_owned(), vec![((*key).to_owned(), 4, 2)])).collect();
        let order = buckets(&stacks, Cut { ranks: 2, smallest: 0, whole: false });
        let order: Vec<&str> = order.iter().flat_map(|bucket| &bucket.matrices).map(String::as_str).collect();
        assert_eq!(order, [keys[3], keys[2], keys[1], keys[0]]);
    }

    #[test]
    fn whole_weights_are_spread_over_the_ranks() {
        let stacks: Vec<Stack> =
            (0..8).map(|i| (format!("model.layers.{i}.x"), vec![(format!("model.layers.{i}.x"), 4, 2)])).collect();
        let buckets = buckets(&stacks, Cut { ranks: 4, smallest: 0, whole: true });
        let kept =
            |rank: usize| buckets.iter().flat_map(|bucket| bucket.of(rank)).map(|piece| piece.elements).sum::<i64>();
        assert!((0..4).all(|rank| kept(rank) == 16));
        assert_eq!(rows_of(&buckets, 0).values().filter(|rows| **rows == (0..4)).count(), 2);
    }
}
