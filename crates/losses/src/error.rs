//! Errors of the losses.

use tch::{Device, Kind, Tensor};

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
    /// An input says nothing, for example one that does not vary.
    #[error("{input} cannot be used: {problem}")]
    Degenerate {
        /// What cannot be used.
        input: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No loss of this kind has this name.
    #[error("no such loss is called {name:?}")]
    UnknownLoss {
        /// Name that was given.
        name: String,
    },
    /// A loss was not given exactly its hyper-parameters.
    #[error("loss {loss} has the hyper-parameters {expected:?}, got {found:?}")]
    Keys {
        /// Name of the loss.
        loss: &'static str,
        /// Its hyper-parameters.
        expected: &'static [&'static str],
        /// Those that were given.
        found: Vec<String>,
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

/// Checks that the inputs that are present are float tensors of the first one's shape, on its device.
pub(crate) fn alike<const N: usize>(inputs: [(&'static str, Option<&Tensor>); N]) -> Result<()> {
    let mut present = inputs.into_iter().filter_map(|(name, tensor)| Some((name, tensor?)));
    let Some((name, first)) = present.next() else { return Ok(()) };
    float(name, first)?;
    present.try_for_each(|(name, tensor)| {
        like(name, tensor, first)?;
        float(name, tensor)
    })
}

/// Checks an input's shape and device against another's.
pub(crate) fn like(name: &'static str, tensor: &Tensor, first: &Tensor) -> Result<()> {
    if tensor.size() != first.size() {
        return Err(Error::Shape { name, expected: first.size(), found: tensor.size() });
    }
    if tensor.device() != first.device() {
        return Err(Error::Device { name, expected: first.device(), found: tensor.device() });
    }
    Ok(())
}

/// Checks that an input keeps the margin between two long sums.
pub(crate) fn float(name: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.kind() {
        Kind::Float | Kind::Double => Ok(()),
        found => Err(Error::Kind { name, found }),
    }
}

/// Checks hyper-parameters that must be above 0 and finite.
pub(crate) fn positive<const N: usize>(loss: &'static str, params: [(&'static str, f64); N]) -> Result<()> {
    check(loss, params, "a finite number above 0", |value| value > 0.0)
}

/// Checks hyper-parameters that must be at least 0 and finite.
pub(crate) fn not_negative<const N: usize>(loss: &'static str, params: [(&'static str, f64); N]) -> Result<()> {
    check(loss, params, "a finite number of at least 0", |value| value >= 0.0)
}

/// Checks hyper-parameters against a range that is told as `expected`.
pub(crate) fn check<const N: usize>(
    loss: &'static str,
    params: [(&'static str, f64); N],
    expected: &'static str,
    fits: impl Fn(f64) -> bool,
) -> Result<()> {
    match params.into_iter().find(|(_, value)| !value.is_finite() || !fits(*value)) {
        Some((name, value)) => Err(Error::Param { loss, name, value, expected }),
        None => Ok(()),
    }
}
