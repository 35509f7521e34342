//! One part of the archive: a Parquet file for a fixed range of steps, and its journal while it is being filled.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    PART_STEPS, columns,
    journal::{Entry, Journal, read},
    row::Rows,
};
use crate::{Error, Result, error::io, files::replace};

/// End of the name of a journal.
const JOURNAL: &str = ".journal";

/// A part that has rows in its journal.
#[derive(Debug)]
pub(super) struct Part {
    parquet: PathBuf,
    journal_path: PathBuf,
    journal: Journal,
}

impl Part {
    /// Opens part `index`, with the positions that its files hold already.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Archive`] with the path.
    pub(super) fn open(folder: &Path, index: u64) -> Result<Self> {
        let first = index * PART_STEPS;
        let stem = format!("completions-{first:06}-{:06}", first + PART_STEPS - 1);
        let (parquet, journal_path) = (folder.join(format!("{stem}.parquet")), folder.join(format!("{stem}{JOURNAL}")));
        let mut journal = Journal::open(&journal_path)?;
        journal.positions.extend(read_rows(&parquet)?.into_keys().map(|(position, _)| position));
        Ok(Self { parquet, journal_path, journal })
    }

    /// Returns the number of positions that have rows here.
    pub(super) fn positions(&self) -> u64 {
        self.journal.positions.len() as u64
    }

    /// Adds what one rollout brought; it outlives the process when this returns.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        self.journal.append(entry)
    }

    /// Writes the Parquet file from the rows of an earlier one and the journal, and removes the journal.
    ///
    /// A row that is there twice is kept as it came last: when work was done again after a kill, its first result was never used.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Archive`] with the path; nothing is lost then.
    pub(super) fn seal(self) -> Result<()> {
        let mut rows = read_rows(&self.parquet)?;
        for entry in read(&self.journal_path)?.0 {
            rows.extend(entry.rows.into_iter().map(|row| (row.key(), row)));
        }
        let ordered: Vec<_> = rows.values().collect();
        replace(&self.parquet, |file| columns::write(file, &ordered).map_err(refused(&self.parquet)))?;
        // From here a kill leaves both files, whose rows are the same.
        fs::remove_file(&self.journal_path).map_err(io("remove", &self.journal_path))
    }
}

/// Returns the indices of the parts of `folder` that have a journal, in order.
///
/// # Errors
/// [`Error::Io`] with the path.
pub(super) fn unsealed(folder: &Path) -> Result<Vec<u64>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let name = entry.map_err(io("list", folder))?.file_name();
        let steps =
            name.to_str().and_then(|name| name.strip_prefix("completions-")?.strip_suffix(JOURNAL)?.split_once('-'));
        parts.extend(steps.and_then(|(first, _)| first.parse::<u64>().ok()).map(|first| first / PART_STEPS));
    }
    parts.sort_unstable();
    Ok(parts)
}

fn refused<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Error {
    move |error| Error::Archive { path: path.to_owned(), reason: error.to_string() }
}

/// Reads the rows of a Parquet file; a missing file has none.
fn read_rows(path: &Path) -> Result<Rows> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Rows::new()),
        Err(error) => return Err(io("open", path)(error)),
    };
    let rows = columns::read(path, bytes).map_err(refused(path))?;
    Ok(rows.into_iter().map(|row| (row.key(), row)).collect())
}
