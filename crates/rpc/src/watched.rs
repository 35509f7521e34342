//! A file whose content follows the file: read again when it was replaced or rewritten, without a restart.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::RwLock;

use crate::{Error, Result, error::io};

/// What tells one state of a file from another. Links are followed, so a folder that is switched by a link counts as well.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

/// The parsed content of a file.
pub(crate) struct Watched<T> {
    path: PathBuf,
    parse: fn(&Path, &str) -> Result<T>,
    state: RwLock<(Stamp, Arc<T>)>,
}

impl<T> Watched<T> {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// [`Error::Io`], or what `parse` says.
    pub(crate) fn open(path: PathBuf, parse: fn(&Path, &str) -> Result<T>) -> Result<Self> {
        let stamp = stamp(&path)?;
        let content = Arc::new(read(&path, parse)?);
        Ok(Self { path, parse, state: RwLock::new((stamp, content)) })
    }

    /// Returns the content of now; that of before, with a warning, while the file cannot be read or parsed.
    pub(crate) fn get(&self) -> Arc<T> {
        let Ok(now) = stamp(&self.path) else { return Arc::clone(&self.state.read().1) };
        if self.state.read().0 == now {
            return Arc::clone(&self.state.read().1);
        }
        let mut state = self.state.write();
        if state.0 != now {
            match read(&self.path, self.parse) {
                Ok(content) => state.1 = Arc::new(content),
                Err(error) => tracing::warn!(%error, "kept what the file said before"),
            }
            state.0 = now;
        }
        Arc::clone(&state.1)
    }
}

fn read<T>(path: &Path, parse: fn(&Path, &str) -> Result<T>) -> Result<T> {
    parse(path, &fs::read_to_string(path).map_err(io("read", path))?)
}

fn stamp(path: &Path) -> Result<Stamp, Error> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).map_err(io("read", path))?;
    Ok(Stamp { modified: metadata.modified().ok(), len: metadata.len(), inode: metadata.ino() })
}
