//! Errors of the judge worker.

/// What can stop a judge worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] joust_queue::Error),
    /// A record does not decode.
    #[error(transparent)]
    Record(#[from] joust_core::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
