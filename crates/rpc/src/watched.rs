//! A file whose content follows the file: read again when it was replaced or rewritten, without a restart.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use parking_lot::RwLock;

use crate::{Error, Result, error::io};

/// How old an answer may be, in milliseconds: a call need not wait for the file system.
const FRESH_MS: u64 = 200;

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
    opened: Instant,
    looked_ms: AtomicU64,
}

impl<T> Watched<T> {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// [`Error::Io`], or what `parse` says.
    pub(crate) fn open(path: PathBuf, parse: fn(&Path, &str) -> Result<T>) -> Result<Self> {
        let stamp = stamp(&path)?;
        let content = Arc::new(read(&path, parse)?);
        let state = RwLock::new((stamp, content));
        Ok(Self { path, parse, state, opened: Instant::now(), looked_ms: AtomicU64::new(0) })
    }

    /// Returns the content of now or of [`FRESH_MS`] ago; that of before, with a warning, while the file cannot be read or parsed.
    pub(crate) fn get(&self) -> Arc<T> {
        let now_ms = self.opened.elapsed().as_millis() as u64;
        if now_ms.saturating_sub(self.looked_ms.load(Ordering::Relaxed)) < FRESH_MS {
            return Arc::clone(&self.state.read().1);
        }
        self.looked_ms.store(now_ms, Ordering::Relaxed);
        self.look()
    }

    fn look(&self) -> Arc<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &Path, text: &str) -> Result<u32> {
        text.parse().map_err(|_| Error::TokenFile { path: path.to_owned(), reason: "no number".into() })
    }

    #[test]
    fn the_content_follows_the_file_and_survives_a_bad_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        assert!(Watched::open(path.clone(), parse).is_err(), "not there");
        fs::write(&path, "1").expect("writable");
        let watched = Watched::open(path.clone(), parse).expect("a number");
        assert_eq!(*watched.look(), 1);
        fs::write(&path, "22").expect("writable");
        assert_eq!(*watched.look(), 22);
        fs::write(&path, "three").expect("writable");
        assert_eq!(*watched.look(), 22);
        fs::remove_file(&path).expect("there");
        assert_eq!(*watched.look(), 22);
        // Replaced by a rename, as an editor or a mounted secret does; the length is the same.
        fs::write(folder.path().join("new"), "44444").expect("writable");
        fs::rename(folder.path().join("new"), &path).expect("renamed");
        assert_eq!(*watched.look(), 44444);
    }
}
