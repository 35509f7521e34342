//! Errors of what arrives.

/// What is wrong with a message: the path of the field, what stands there and what is wanted.
///
/// Texts of prompts and completions never stand in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field that must be set is not.
    #[error("field {field} is missing, expected {wanted}")]
    Missing {
        /// Path from the message on, for example `examples[3].target`.
        field: String,
        /// What is wanted.
        wanted: String,
    },
    /// A field holds what cannot be used.
    #[error("field {field} is {value}, expected {wanted}")]
    Value {
        /// Path from the message on.
        field: String,
        /// What stands there, or how much of it.
        value: String,
        /// What is wanted.
        wanted: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Says that `field` is missing.
    pub fn missing(field: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::Missing { field: field.into(), wanted: wanted.into() }
    }

    /// Says that `field` holds `value`.
    pub fn value(field: impl Into<String>, value: impl ToString, wanted: impl Into<String>) -> Self {
        Self::Value { field: field.into(), value: value.to_string(), wanted: wanted.into() }
    }

    /// Puts the place of the inner message before the field's path.
    #[must_use]
    pub fn at(mut self, parent: impl std::fmt::Display) -> Self {
        let (Self::Missing { field, .. } | Self::Value { field, .. }) = &mut self;
        *field = if field.is_empty() { parent.to_string() } else { format!("{parent}.{field}") };
        self
    }

    /// Returns the path of the field.
    pub fn field(&self) -> &str {
        let (Self::Missing { field, .. } | Self::Value { field, .. }) = self;
        field
    }

    /// Returns what is wrong with the field, without its path.
    pub fn description(&self) -> String {
        match self {
            Self::Missing { wanted, .. } => format!("missing, expected {wanted}"),
            Self::Value { value, wanted, .. } => format!("is {value}, expected {wanted}"),
        }
    }
}
