//! The pair losses by name: a closed choice, so that a missing case is a compile error.

use crate::{
    DpoParams, HingeParams, IpoParams, LossOutput, PairLogps, Result, SlicHfParams, dpo_loss, hinge_loss, ipo_avg_loss,
    ipo_loss, slic_hf_loss,
};

/// A pair loss with its hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PairLoss {
    /// [`dpo_loss`].
    Dpo(DpoParams),
    /// [`ipo_loss`], on sums.
    Ipo(IpoParams),
    /// [`ipo_avg_loss`], on averages over tokens.
    IpoAvg(IpoParams),
    /// [`hinge_loss`], held to a reference.
    Hinge(HingeParams),
    /// [`slic_hf_loss`], without a reference.
    SlicHf(SlicHfParams),
}

impl PairLoss {
    /// Computes the loss.
    ///
    /// # Errors
    /// As the loss's own function.
    pub fn compute(&self, inputs: &PairLogps) -> Result<LossOutput> {
        match self {
            Self::Dpo(params) => dpo_loss(inputs, params),
            Self::Ipo(params) => ipo_loss(inputs, params),
            Self::IpoAvg(params) => ipo_avg_loss(inputs, params),
            Self::Hinge(params) => hinge_loss(inputs, params),
            Self::SlicHf(params) => slic_hf_loss(inputs, params),
        }
    }

    /// Returns the name in the run file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dpo(_) => "dpo",
            Self::Ipo(_) => "ipo",
            Self::IpoAvg(_) => "ipo_avg",
            Self::Hinge(_) => "hinge",
            Self::SlicHf(_) => "slic_hf",
        }
    }

    /// Returns whether reference log-probabilities are read; without need the caller can spare the forward pass.
    pub fn needs_reference(&self) -> bool {
        !matches!(self, Self::SlicHf(_))
    }
}
