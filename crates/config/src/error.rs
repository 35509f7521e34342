//! What can be wrong with a file, an override or a combination of both.

use std::{io, path::PathBuf};

/// A problem of a configuration; the message names the key, the value, the place and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is not TOML.
    #[error("{file}:{line}: not valid TOML: {reason}")]
    Syntax {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// An override is not `key=value`.
    #[error("override {text:?} is not of the form key=value, for example loss.beta=0.2")]
    Override {
        /// The override as given.
        text: String,
    },
    /// No such key.
    #[error("unknown key {key} in {place}{}", hint(nearest))]
    UnknownKey {
        /// Dotted key.
        key: String,
        /// File and line, variable or override.
        place: String,
        /// Known keys that look like it, nearest first.
        nearest: Vec<String>,
    },
    /// A key that must be there is not.
    #[error("missing key {key} in {file}: {expected}")]
    MissingKey {
        /// Dotted key.
        key: String,
        /// The file.
        file: String,
        /// What to write.
        expected: String,
    },
    /// A value of another type, or outside of its range.
    #[error("{key} = {value} in {place} is not valid: expected {expected}")]
    BadValue {
        /// Dotted key.
        key: String,
        /// The value as JSON.
        value: String,
        /// File and line, variable or override.
        place: String,
        /// The domain.
        expected: String,
    },
    /// A name that is none of a closed choice.
    #[error("{key} = {value:?} in {place} is not known{}; known are {}", hint(nearest), known.join(", "))]
    UnknownValue {
        /// Dotted key.
        key: String,
        /// The value.
        value: String,
        /// File and line, variable or override.
        place: String,
        /// Known values that look like it, nearest first.
        nearest: Vec<String>,
        /// Every known value.
        known: Vec<String>,
    },
    /// Values that are valid alone and impossible together.
    #[error("{key} = {value} in {place} does not go together with the rest: {reason}")]
    Conflict {
        /// Dotted key.
        key: String,
        /// The value.
        value: String,
        /// File and line, variable or override.
        place: String,
        /// Why, and what to change.
        reason: String,
    },
    /// The file passed every check and still does not decode.
    #[error("{file} does not decode: {reason}")]
    Decode {
        /// The file.
        file: String,
        /// What the decoder said.
        reason: String,
    },
    /// Several problems of one file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Turns a list of problems into one error, or none.
    pub(crate) fn from_list(mut errors: Vec<Error>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

/// Renders "; did you mean a or b?" or nothing.
fn hint(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) }
}
