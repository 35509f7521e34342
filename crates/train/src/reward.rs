//! Reward models: the Bradley-Terry loss on scores of chosen and rejected answers.
//!
//! See "Rank Analysis of Incomplete Block Designs", Bradley and Terry, and "Learning to summarize from human feedback", Stiennon
//! et al., <https://arxiv.org/abs/2009.01325>, Eq. 1.

use joust_model::Device;
use tch::{Kind, Tensor};

use crate::{Error, Master, Result, Update, sequence_scores};

/// Options of the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RewardLoss {
    /// Weight of `(s⁺ + s⁻)²`, which keeps scores near 0; 0 leaves it out.
    pub center_coefficient: f64,
}

/// Whole sequences (prompt and answer) of a batch, chosen beside rejected.
#[derive(Debug, Clone)]
pub struct RewardBatch {
    /// Ids of prompt and chosen answer.
    pub chosen: Vec<Vec<u32>>,
    /// Ids of prompt and rejected answer.
    pub rejected: Vec<Vec<u32>>,
    /// Margin that chosen should win by, per pair; empty for none.
    pub margins: Vec<f64>,
}

/// Updates a reward model once: `L = -log σ(s⁺ − s⁻ − margin) + c·(s⁺ + s⁻)²`, mean over pairs.
///
/// # Returns
/// The loss, the share of pairs in which chosen scores higher, and the update.
///
/// # Errors
/// [`Error::LossNotFinite`] or [`Error::GradientNotFinite`]; then nothing was updated.
pub fn reward_step(
    master: &mut Master,
    batch: &RewardBatch,
    params: &RewardLoss,
    device: &Device,
) -> Result<(f64, f64, Update)> {
    let _permit = device.acquire();
    let pairs = batch.chosen.len() as i64;
    let sequences: Vec<Vec<u32>> = batch.chosen.iter().chain(&batch.rejected).cloned().collect();
    let scores = sequence_scores(&master.model()?, &sequences);
    let (chosen, rejected) = (scores.narrow(0, 0, pairs), scores.narrow(0, pairs, pairs));
    let mut margin = &chosen - &rejected;
    if !batch.margins.is_empty() {
        margin -= Tensor::from_slice(&batch.margins).to_kind(Kind::Float).to_device(device.torch());
    }
    let mut loss = -margin.log_sigmoid().mean(Kind::Float);
    if params.center_coefficient > 0.0 {
        loss += params.center_coefficient * (&chosen + &rejected).square().mean(Kind::Float);
    }
    let value = loss.double_value(&[]);
    if !value.is_finite() {
        let examples = format!("(a batch of {pairs} pairs)");
        return Err(Error::LossNotFinite { step: master.optimizer.updates, value, examples });
    }
    let accuracy = chosen.gt_tensor(&rejected).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    loss.backward();
    Ok((value, accuracy, master.update()?))
}
