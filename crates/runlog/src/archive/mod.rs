//! The archive of completions and judgements: Parquet files under `archive/` in a run folder, one row a completion.
//!
//! It is for readers and for later offline training; nothing of a run reads it back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use joust_core::{Judgement, Outcome, Purpose, Rollout};

mod columns;
mod journal;
mod part;
mod row;

use self::{
    journal::Entry,
    part::{Part, unsealed},
    row::Row,
};
use crate::{Result, error::io};

/// Name of the archive's folder in a run folder.
const FOLDER: &str = "archive";
/// Steps of one part.
const PART_STEPS: u64 = 20;

/// Writer of the archive of a run.
///
/// A part `completions-000000-000019.parquet` holds the completions of 20 steps, by position and sample index, each once, with the
/// judgement of their prompt; a row that comes again replaces the first. Until all positions of its steps have come, or rows of
/// the second next part, or [`Archive::close`], its rows lie in a `.journal` file beside it.
///
/// What [`Archive::add`] has taken outlives the process: an archive that is opened again goes on with the journals. It may be lost
/// when the machine loses power, unless its part is written. Readers see whole Parquet files only, those of parts that are written.
#[derive(Debug)]
pub struct Archive {
    folder: PathBuf,
    prompts_per_step: u64,
    open: BTreeMap<u64, Part>,
    newest: u64,
}

impl Archive {
    /// Opens the archive of the run folder `dir`, made if missing, and goes on with the parts that are not written yet.
    ///
    /// # Arguments
    /// * `dir` - the run folder.
    /// * `prompts_per_step` - positions of a step, as in the run file; the same whenever this archive is opened; 0 counts as 1.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Archive`] with the path.
    pub fn open(dir: &Path, prompts_per_step: u64) -> Result<Self> {
        let folder = dir.join(FOLDER);
        fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        let open: BTreeMap<u64, Part> = unsealed(&folder)?
            .into_iter()
            .map(|index| Ok((index, Part::open(&folder, index)?)))
            .collect::<Result<_>>()?;
        let newest = open.keys().next_back().copied().unwrap_or(0);
        Ok(Self { folder, prompts_per_step: prompts_per_step.max(1), open, newest })
    }

    /// Adds the completions of a judged rollout; those that were not sampled to train are left out, as they have positions of
    /// their own.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Archive`] with the path, for example on a full disk; what was taken before stays.
    pub fn add(&mut self, rollout: &Rollout, judgement: &Judgement, outcome: &Outcome) -> Result<()> {
        if rollout.task.purpose != Purpose::Train {
            return Ok(());
        }
        let position = rollout.task.position;
        let index = position / self.part_positions();
        if !self.open.contains_key(&index) {
            self.open.insert(index, Part::open(&self.folder, index)?);
        }
        let entry = Entry::new(position, Row::of(rollout, judgement, outcome));
        let complete = match self.open.get_mut(&index) {
            Some(part) => {
                let before = part.positions();
                part.append(&entry)?;
                part.positions() > before && part.positions() == self.part_positions()
            }
            None => false,
        };
        if complete {
            self.seal(index)?;
        }
        if index > self.newest {
            self.newest = index;
            self.seal_old()?;
        }
        Ok(())
    }

    /// Writes every part that has rows in a journal.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Archive`] with the path; the rows stay in their journals then.
    pub fn close(mut self) -> Result<()> {
        let open: Vec<u64> = self.open.keys().copied().collect();
        open.into_iter().try_for_each(|index| self.seal(index))
    }

    /// Positions of a part; a range that does not fit 64 bits is one that no run reaches.
    fn part_positions(&self) -> u64 {
        self.prompts_per_step.saturating_mul(PART_STEPS)
    }

    /// Writes the parts behind the one before the newest: prompts that were dropped without a judgement never come.
    fn seal_old(&mut self) -> Result<()> {
        let old: Vec<u64> = self.open.range(..self.newest.saturating_sub(1)).map(|(index, _)| *index).collect();
        old.into_iter().try_for_each(|index| self.seal(index))
    }

    fn seal(&mut self, index: u64) -> Result<()> {
        self.open.remove(&index).map_or(Ok(()), Part::seal)
    }
}

#[cfg(test)]
mod tests;
