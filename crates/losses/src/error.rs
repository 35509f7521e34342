//! Errors of the losses.

use tch::{Device, Kind};

/// Why a loss cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input does not have the shape of the others.
    #[error("expected {name} of shape {expected:?}, got {found:?}")]
    Shape {
        /// Field of the inputs.
        name: &'static str,
        /// Shape of `policy_chosen`, which the others follow.
        expected: Vec<i64>,
        /// Shape that was given.
        found: Vec<i64>,
    },
    /// `policy_chosen` is not a vector, so no batch size can be read from it.
    #[error("expected policy_chosen of shape [B], got {found:?}; sum log-probabilities over tokens first")]
    NotAVector {
        /// Shape that was given.
        found: Vec<i64>,
    },
    /// An input is of a kind that loses the margin between two long sums.
    #[error("expected {name} of kind Float or Double, got {found:?}; sum log-probabilities in float32")]
    Kind {
        /// Field of the inputs.
        name: &'static str,
        /// Kind that was given.
        found: Kind,
    },
    /// The loss needs an input that is absent.
    #[error("loss {loss} needs {input}, which is absent; call {setter} on the inputs")]
    Missing {
        /// Name of the loss.
        loss: &'static str,
        /// What is absent.
        input: &'static str,
        /// Method of the inputs that sets it.
        setter: &'static str,
    },
    /// A hyper-parameter is out of its range.
    #[error("loss {loss}: {name} is {value}, expected {expected}")]
    Param {
        /// Name of the loss.
        loss: &'static str,
        /// Name of the hyper-parameter.
        name: &'static str,
        /// Value that was given.
        value: f64,
        /// Range that is allowed.
        expected: &'static str,
    },
    /// An input lies on another device than the others.
    #[error("expected {name} on {expected:?}, got {found:?}; move it there first")]
    Device {
        /// Field of the inputs.
        name: &'static str,
        /// Device of `policy_chosen`, which the others follow.
        expected: Device,
        /// Device that was given.
        found: Device,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Checks that a temperature-like hyper-parameter is positive and finite.
pub(crate) fn positive(loss: &'static str, name: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(Error::Param { loss, name, value, expected: "a finite number above 0" })
    }
}
