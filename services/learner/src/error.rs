//! Errors of the learner.

/// What can stop a learner.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] joust_queue::Error),
    /// A record does not decode.
    #[error(transparent)]
    Record(#[from] joust_core::Error),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] joust_train::Error),
    /// A setting of pairing is out of range.
    #[error(transparent)]
    Pairs(#[from] joust_pairs::Error),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] joust_model::Error),
    /// The stored steps do not follow from the checkpoint.
    #[error(
        "the queue's next assigned step is {found}, the checkpoint continues at step {expected}; the run folder mixes two runs, restore it from a backup or start a new one"
    )]
    Gap {
        /// Step that the checkpoint continues at.
        expected: u64,
        /// First assigned step in the queue.
        found: u64,
    },
    /// A manifest names an example that the queue does not hold.
    #[error("step {step} names example {id}, which the queue does not hold")]
    MissingExample {
        /// The step.
        step: u64,
        /// The example.
        id: String,
    },
    /// A record of a step was given up, so the step cannot be completed.
    #[error(
        "record {id} of topic {topic} was given up ({reason}); its step cannot be completed, mend the cause and start a new run"
    )]
    DeadLetter {
        /// The topic.
        topic: String,
        /// The record.
        id: String,
        /// Why it was given up.
        reason: String,
    },
    /// A rank ended, or lost another one; it was started again as often as allowed.
    #[error("rank {rank} was lost ({reason}); look at what it wrote above, and go on with --resume")]
    RankLost {
        /// The rank.
        rank: usize,
        /// How it ended, or whom it lost.
        reason: String,
    },
    /// A rank could not do what all were told.
    #[error("rank {rank}: {message}")]
    Rank {
        /// The rank.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// The ranks cannot meet.
    #[error(transparent)]
    Border(#[from] joust_torch::Error),
    /// Published weights cannot be put where others fetch them.
    #[error("cannot publish weights at {path}: {reason}")]
    Outlet {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
    /// An example that a step by hand names does not wait.
    #[error("example {id} does not wait: it was never put, or a step has applied it")]
    NotWaiting {
        /// The example.
        id: String,
    },
    /// A step by hand was asked for without examples.
    #[error("no example waits that a step could train on; put some first")]
    NothingWaits,
    /// A checkpoint was asked for within an iteration.
    #[error(
        "after step {step} no checkpoint can be written: an iteration of {steps} steps is under way; ask again at its end"
    )]
    WithinIteration {
        /// Steps that are done.
        step: u64,
        /// Steps of an iteration.
        steps: u64,
    },
    /// The trainer's thread failed.
    #[error("the trainer's thread failed: {0}")]
    Worker(String),
    /// Who observes the run failed: metrics, evaluation or archive.
    #[error("{0}")]
    Observer(String),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
