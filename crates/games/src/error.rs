//! Errors of the games.

/// What can stop a game.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A loss or the optimizer refused.
    #[error(transparent)]
    Train(#[from] joust_train::Error),
    /// The plot cannot be drawn.
    #[error("failed to draw the plot: {0}")]
    Plot(String),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
