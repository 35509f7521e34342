//! The rows of a part that is still being filled: appended at once, frame by frame, so that a kill loses none.

use std::{collections::BTreeSet, fs, io::ErrorKind, path::Path};

use joust_core::{SCHEMA, decode, encode};
use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::{Error, Result, error::io, files::AppendFile, tfrecord};

/// What one judged rollout brought.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    schema: u16,
    /// Position of the rollout, which may have no completions.
    pub(super) position: u64,
    pub(super) rows: Vec<Row>,
}

impl Entry {
    /// Returns the entry of the rollout at `position`.
    pub(super) fn new(position: u64, rows: Vec<Row>) -> Self {
        Self { schema: SCHEMA, position, rows }
    }
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: AppendFile,
    /// Positions of its entries.
    pub(super) positions: BTreeSet<u64>,
}

impl Journal {
    /// Opens the journal at `path`, made if missing, behind its last whole entry: a cut one is removed.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, [`Error::Archive`] for an entry of another version.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (entries, whole) = read(path)?;
        let cut_bytes = fs::metadata(path).map_or(0, |file| file.len().saturating_sub(whole));
        if cut_bytes > 0 {
            tracing::warn!(path = %path.display(), cut_bytes, "removed the cut end of an archive journal");
        }
        let positions = entries.iter().map(|entry| entry.position).collect();
        Ok(Self { file: AppendFile::open(path, whole)?, positions })
    }

    /// Appends an entry; it outlives the process when this returns.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        self.file.append(&tfrecord::frame(&encode(entry)))?;
        self.positions.insert(entry.position);
        Ok(())
    }
}

/// Reads the whole entries of a journal and the bytes that they take; a missing file has none.
///
/// # Errors
/// [`Error::Io`] with the path, [`Error::Archive`] for an entry of another version.
pub(super) fn read(path: &Path) -> Result<(Vec<Entry>, u64)> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(io("read", path)(error)),
    };
    let mut rest = &bytes[..];
    let mut entries = Vec::new();
    while let Some((payload, behind)) = tfrecord::split(rest) {
        let entry = decode("archive entry", payload)
            .map_err(|error| Error::Archive { path: path.to_owned(), reason: error.to_string() })?;
        entries.push(entry);
        rest = behind;
    }
    Ok((entries, (bytes.len() - rest.len()) as u64))
}
