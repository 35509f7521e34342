//! The ranks that train a step together: each holds a share of its examples, in the order of the ranks.

use std::{ops::Range, sync::Arc};

use joust_torch::ProcessGroup;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// The ranks of a step; by default this process alone.
///
/// Whatever gathers is called by all ranks in the same order, by those without examples too.
#[derive(Debug, Clone, Default)]
pub struct Ranks(Option<Together>);

#[derive(Debug, Clone)]
struct Together {
    group: Arc<ProcessGroup>,
    smallest: i64,
}

impl Ranks {
    /// Trains with the other ranks of a group.
    ///
    /// Gradients are summed layer by layer while the backward pass still runs, in buckets of `smallest` elements at least: 2^18, 1 MiB, costs
    /// little more to send than a few kilobytes.
    pub fn of(group: Arc<ProcessGroup>, smallest: i64) -> Self {
        Self(Some(Together { group, smallest }))
    }

    /// Returns the group and the elements of its smallest bucket; `None` alone.
    pub(crate) fn group(&self) -> Option<(&Arc<ProcessGroup>, i64)> {
        self.0.as_ref().map(|together| (&together.group, together.smallest))
    }

    /// Returns this rank, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |together| together.group.rank())
    }

    /// Returns the number of ranks.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |together| together.group.size())
    }

    /// Takes this rank's share of a list: contiguous, no two shares differing by more than one.
    pub fn share<T>(&self, items: Vec<T>) -> Vec<T> {
        let (rank, size, count) = (self.rank(), self.size(), items.len());
        let (begin, end) = (count * rank / size, count * (rank + 1) / size);
        items.into_iter().skip(begin).take(end - begin).collect()
    }

    /// Adds a number of every rank.
    ///
    /// # Errors
    /// [`Error::Border`] if a rank is lost.
    pub fn sum(&self, own: f64) -> Result<f64> {
        Ok(self.gather(own)?.into_iter().sum())
    }

    /// Returns the values of all ranks, by rank.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        let Some((group, _)) = self.group() else { return Ok(vec![own]) };
        let bytes = rmp_serde::to_vec_named(&own).expect("plain data always encodes");
        let read = |(rank, bytes): (usize, Vec<u8>)| {
            rmp_serde::from_slice(&bytes).map_err(|error| Error::Rank { rank, message: error.to_string() })
        };
        group.all_gather_bytes(&bytes)?.into_iter().enumerate().map(read).collect()
    }

    /// Returns the lists of all ranks end to end, and where this rank's is among them.
    pub(crate) fn join<T: Serialize + DeserializeOwned>(&self, own: Vec<T>) -> Result<(Vec<T>, Range<usize>)> {
        let lists = self.gather(own)?;
        let begin = lists[..self.rank()].iter().map(Vec::len).sum();
        let range = begin..begin + lists[self.rank()].len();
        Ok((lists.into_iter().flatten().collect(), range))
    }

    /// Passes a result on if all ranks have one.
    ///
    /// # Errors
    /// The rank's own error, or [`Error::Rank`] with that of another.
    pub(crate) fn agree<T>(&self, own: Result<T>) -> Result<T> {
        let told = self.gather(own.as_ref().err().map(ToString::to_string))?;
        let other = told.into_iter().enumerate().find_map(|(rank, error)| Some((rank, error?)));
        match (own, other) {
            (Ok(_), Some((rank, message))) => Err(Error::Rank { rank, message }),
            (own, _) => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_a_rank_has_it_all() {
        let alone = Ranks::default();
        assert_eq!((alone.rank(), alone.size()), (0, 1));
        assert_eq!(alone.share(vec![1, 2, 3]), [1, 2, 3]);
        assert_eq!(alone.gather("a".to_owned()).expect("alone"), ["a"]);
        assert_eq!(alone.join(vec![1.5, 2.5]).expect("alone"), (vec![1.5, 2.5], 0..2));
        assert!(alone.agree(Ok(1)).is_ok());
        assert!(matches!(
            alone.agree::<()>(Err(Error::Rank { rank: 0, message: "x".into() })),
            Err(Error::Rank { .. })
        ));
    }
}
