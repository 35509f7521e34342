//! Errors of the shared records.

/// What can go wrong when a record crosses a border.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not a record of the expected kind.
    #[error("record of kind {kind} does not decode: {reason}")]
    Decode {
        /// Name of the expected record type.
        kind: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The record was written by another schema version.
    #[error(
        "record of kind {kind} has schema version {found}, expected {expected}; finish the run with the version that began it"
    )]
    Schema {
        /// Name of the expected record type.
        kind: &'static str,
        /// Version found in the record.
        found: u16,
        /// Version that this build reads.
        expected: u16,
    },
    /// A run name holds characters that a folder or a key cannot hold.
    #[error(
        "run name {0:?} is not valid: use 1 to 64 letters, digits, '-', '_' or '.', starting with a letter or digit"
    )]
    RunName(String),
    /// A record id is not 32 hexadecimal digits.
    #[error("record id {0:?} is not valid: expected 32 hexadecimal digits")]
    RecordId(String),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
