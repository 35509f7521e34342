//! Errors of the C++ border.

/// What can go wrong in libtorch or in the loops of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// C++ threw; nothing was computed.
    #[error("libtorch in {operation}: {message}")]
    Cpp {
        /// The function that was called.
        operation: &'static str,
        /// What the exception said.
        message: String,
    },
    /// A gradient hook panicked in the middle of the backward pass, and a gradient is missing.
    #[error("a gradient was lost in the backward pass: {message}")]
    Hook {
        /// What the panic said.
        message: String,
    },
    /// Draws need one uniform a row.
    #[error("expected {rows} uniforms, one for each row of logits, got {uniforms}")]
    Rows {
        /// Rows of logits.
        rows: usize,
        /// Uniforms given.
        uniforms: usize,
    },
    /// A name that no C string can hold.
    #[error("{key:?} holds a zero byte and names nothing")]
    Key {
        /// The name.
        key: String,
    },
    /// Something did not come in time.
    #[error("{operation} took longer than {seconds} s; a rank may hang, or the time is too short for this machine")]
    Timeout {
        /// What was waited for.
        operation: &'static str,
        /// How long, in seconds.
        seconds: f64,
    },
    /// The connection to a rank broke: its process ended, or it aborted the group.
    #[error("{operation} lost a rank: {message}")]
    PeerLost {
        /// The collective.
        operation: &'static str,
        /// What the connection said.
        message: String,
    },
    /// Ranks that nobody saw.
    #[error("of {size} ranks {missing:?} did not join within {seconds} s; look at their logs, or start them")]
    Absent {
        /// The ranks that are missing, from 0.
        missing: Vec<usize>,
        /// Ranks of the group.
        size: usize,
        /// How long they were waited for, in seconds.
        seconds: f64,
    },
    /// A rank that belongs to something else.
    #[error(
        "rank {rank} comes with {found:?}, expected {expected:?}; start all ranks with the same run file, model and release"
    )]
    Identity {
        /// The rank.
        rank: usize,
        /// What it came with.
        found: String,
        /// What this rank came with.
        expected: String,
    },
    /// A rank beyond the size of its group.
    #[error("rank {rank} of {size} ranks; ranks count from 0")]
    Rank {
        /// The rank.
        rank: usize,
        /// Ranks of the group.
        size: usize,
    },
    /// A tensor that a collective cannot move.
    #[error(
        "{operation} of a tensor of shape {found:?}: it must be contiguous, on the CPU (or, built with CUDA, a GPU), and be \
         cut evenly among the ranks"
    )]
    Layout {
        /// The collective.
        operation: &'static str,
        /// Shape that was given.
        found: Vec<i64>,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
