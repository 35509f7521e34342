//! Errors of the files and lines that a run writes for its readers.

use std::path::{Path, PathBuf};

/// What can go wrong when telemetry is set up or written.
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
    /// The log filter of the environment does not parse.
    #[error("{variable}={value:?} is not a log filter ({reason}): use a level such as info, or target=level pairs")]
    LogFilter {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What the parser said.
        reason: String,
    },
    /// Traces, metrics and logs cannot be sent anywhere.
    #[error(
        "telemetry cannot be exported ({reason}): write an http:// or https:// URL such as http://collector:4317 as telemetry.otlp_endpoint, or remove it"
    )]
    Export {
        /// What the exporter said.
        reason: String,
    },
    /// The metrics' port cannot be had.
    #[error("cannot serve metrics on {address:?} ({source}): write a free host:port as listen.metrics, or remove it")]
    MetricsListen {
        /// The address.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Logs were set up before in this process.
    #[error("logs are already set up in this process: call init once, at its start")]
    LogsAlreadySetUp,
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Returns the conversion of an I/O error that names `action` and `path`.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
