//! Errors of pairing and replay.

/// Why pairing or replay cannot follow its settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A setting is out of its range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// Key of the run file.
        name: &'static str,
        /// Value that was given.
        value: f64,
        /// Range that is allowed.
        expected: &'static str,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
