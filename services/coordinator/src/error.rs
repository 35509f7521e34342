//! Errors of the coordinator.

/// What can stop the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue failed.
    #[error("failed to put prompts: {0}")]
    Queue(#[from] joust_queue::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
