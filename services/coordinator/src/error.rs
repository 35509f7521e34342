//! Errors of the coordinator.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What can stop the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue failed.
    #[error("failed to put prompts: {0}")]
    Queue(#[from] joust_queue::Error),
    /// A given example cannot be made an outcome.
    #[error("failed to read a given example of data.pairs: {0}")]
    Given(String),
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What the coordinator remembered cannot be read.
    #[error("{path} is damaged ({reason}); restore it from a backup, or name another folders.state")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Serving failed.
    #[error(transparent)]
    Rpc(#[from] joust_rpc::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds action and path to an I/O error.
pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}

/// Makes the names in a file's folder outlive a loss of power.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
