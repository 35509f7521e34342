//! Errors of starting to serve or to call; a failed call is a [`tonic::Status`].

use std::{io, path::PathBuf};

/// What can go wrong before a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// The token file holds something else than tokens.
    #[error("token file {path} is not valid: {reason}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong; never a token.
        reason: String,
    },
    /// An address is not one.
    #[error("address {0:?} is not valid: expected http://HOST:PORT, or https://HOST:PORT with TLS")]
    Address(String),
    /// The deployment file lacks something.
    #[error("deployment file: {0}")]
    Deployment(String),
    /// Certificates cannot be made.
    #[error("cannot make certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// TLS cannot be set up, or the server ended.
    #[error("{action} failed: {source}")]
    Transport {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// The descriptors of the services cannot be served.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Result with this crate's [`Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds action and path to an I/O error.
pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}

/// Adds the action to a transport error.
pub(crate) fn transport(action: &'static str) -> impl FnOnce(tonic::transport::Error) -> Error {
    move |source| Error::Transport { action, source }
}
