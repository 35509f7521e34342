//! Checkpoints written in the background: training goes on until the next update, which waits for the disk.

use std::path::Path;

use crate::{
    Error, Result, Shard, Trainer, Written,
    checkpoint::{Writing, updates},
};

/// A shard on its way to the disk.
#[derive(Debug)]
pub(crate) enum Background {
    Running(Writing),
    Ended(Result<Shard>),
}

impl Background {
    fn settled(self) -> Self {
        match self {
            Self::Running(writing) => Self::Ended(writing.wait()),
            ended => ended,
        }
    }
}

impl Trainer {
    /// Begins to write this rank's shard of a checkpoint into a folder, from masters, moments and averages as they are now: no copy is made,
    /// the next update waits until they are on disk.
    ///
    /// # Errors
    /// [`Error::Io`] if the system gives no thread.
    pub fn begin_checkpoint(&mut self, staging: &Path) -> Result<()> {
        self.settle();
        let writing = Writing::begin(staging, self.ranks().rank(), &self.masters())?;
        self.background = Some((Background::Running(writing), updates(&self.masters())));
        Ok(())
    }

    /// Waits until what was begun is on disk, on all ranks, which all call it.
    ///
    /// # Errors
    /// [`Error::Io`] with the path on the rank that could not write, [`Error::Rank`] on the others.
    pub fn end_checkpoint(&mut self) -> Result<Written> {
        self.settle();
        let none = || Error::Checkpoint { path: "shard".into(), reason: "none was begun".into() };
        let (own, updates) = match self.background.take() {
            Some((Background::Ended(own), updates)) => (own, updates),
            _ => (Err(none()), Vec::new()),
        };
        let own = self.ranks().agree(own)?;
        Ok(Written { shards: self.ranks().gather(own)?, updates })
    }

    /// Waits until nothing reads masters, moments and averages any more.
    pub(crate) fn settle(&mut self) {
        self.background = self.background.take().map(|(background, updates)| (background.settled(), updates));
    }

    /// Reads the newest whole checkpoint, see [`crate::latest`].
    ///
    /// # Errors
    /// As [`crate::latest`].
    pub fn restore<S: serde::de::DeserializeOwned>(&mut self, root: &Path) -> Result<crate::Restored<S>> {
        self.settle();
        crate::latest(root, &mut self.masters_mut())
    }
}
