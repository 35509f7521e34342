//! Errors of the rollout worker.

/// What can stop a rollout worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A player that has no weights here.
    #[error("player {player:?} cannot answer in this build; use policy, reference or mixture")]
    Player {
        /// The player.
        player: joust_core::Player,
    },
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] joust_queue::Error),
    /// A record does not decode.
    #[error(transparent)]
    Record(#[from] joust_core::Error),
    /// A prompt or an answer does not go through the tokenizer.
    #[error(transparent)]
    Data(#[from] joust_data::Error),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] joust_engine::Error),
    /// No weights will be published any more.
    #[error("the learner is gone, no newer weights will come")]
    LearnerGone,
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
