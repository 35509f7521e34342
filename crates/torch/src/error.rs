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
    /// Draws need one uniform a row.
    #[error("expected {rows} uniforms, one for each row of logits, got {uniforms}")]
    Rows {
        /// Rows of logits.
        rows: usize,
        /// Uniforms given.
        uniforms: usize,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
