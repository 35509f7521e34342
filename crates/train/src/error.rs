//! Errors of training.

use std::path::PathBuf;

/// What can go wrong in a step or with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loss of a micro-batch is NaN or infinite; nothing was updated.
    #[error(
        "loss is {value} at step {step} on examples {examples}; lower learner.learning_rate or loss.beta and resume from the last checkpoint, or set learner.on_nan = \"skip\""
    )]
    LossNotFinite {
        /// Optimizer step.
        step: u64,
        /// The value.
        value: f64,
        /// Ids of the micro-batch's examples.
        examples: String,
    },
    /// The gradient is NaN or infinite; nothing was updated.
    #[error(
        "gradient norm is {value} at step {step}; lower learner.learning_rate or set learner.max_grad_norm and resume from the last checkpoint, or set learner.on_nan = \"skip\""
    )]
    GradientNotFinite {
        /// Optimizer step.
        step: u64,
        /// The value.
        value: f64,
    },
    /// An example does not carry what the loss needs.
    #[error("example {id} cannot be trained: {problem}")]
    Example {
        /// Id of the example.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// Another rank failed, or this one cannot read what it said.
    #[error("rank {rank}: {message}")]
    Rank {
        /// The rank.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// A checkpoint cannot be read back.
    #[error("checkpoint {path} is damaged ({reason}); remove it to resume from the one before")]
    Checkpoint {
        /// Folder of the checkpoint.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("failed to {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The loss refused its inputs.
    #[error(transparent)]
    Loss(#[from] joust_losses::Error),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] joust_model::Error),
    /// The C++ border refused.
    #[error(transparent)]
    Border(#[from] joust_torch::Error),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
