//! How many answers of a run are being sampled.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A count that its holders raise while they sample; clones share it.
#[derive(Debug, Clone, Default)]
pub struct UnderWay(Arc<AtomicUsize>);

/// Answers that are being sampled, counted until it is dropped.
pub(crate) struct Counted(UnderWay, usize);

impl UnderWay {
    /// Counts answers until what is returned is dropped.
    pub(crate) fn count(&self, answers: usize) -> Counted {
        self.0.fetch_add(answers, Ordering::Relaxed);
        Counted(self.clone(), answers)
    }

    /// Returns how many there are now.
    pub fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_ends_with_its_holder() {
        let all = UnderWay::default();
        let (first, second) = (all.count(3), all.clone().count(4));
        assert_eq!(all.now(), 7);
        drop(first);
        assert_eq!(all.now(), 4);
        drop(second);
        assert_eq!(all.now(), 0);
    }
}
