//! Preference losses as pure functions on tensors.
//!
//! One file a family, one function a loss; nothing here samples, scores, reduces over the batch or logs. The caller brings
//! summed log-probabilities in nats and gets one loss a pair; each file names its paper.

mod dpo;
mod error;
mod inputs;
mod ipo;
mod registry;
mod slic;
#[cfg(test)]
mod tests;

pub use dpo::{DpoParams, dpo_loss};
pub use error::{Error, Result};
pub use inputs::{LossOutput, PairLogps};
pub use ipo::{IpoParams, ipo_avg_loss, ipo_loss};
pub use registry::PairLoss;
pub use slic::{HingeParams, SlicHfParams, hinge_loss, slic_hf_loss};
