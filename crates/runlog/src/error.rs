//! Errors of the files and lines that a run writes for its readers.

use std::path::{Path, PathBuf};

/// What can go wrong when the files of a run are read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation, for example on a full disk.
    #[error("failed to {action} {path}: {source}; free space or mend the folder's rights, then go on with --resume")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line of a JSONL file is not one that this crate writes.
    #[error(
        "line {line} of {path} is not a record of a run ({reason}): remove that line, or use another output folder"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// A file of the archive cannot be read or written.
    #[error(
        "archive file {path} cannot be used ({reason}): move it out of the archive folder, then go on with --resume"
    )]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Returns the conversion of an I/O error that names `action` and `path`.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
