//! Reward models: a step on scores of chosen and rejected answers, and one on ratings of single answers.

use joust_losses::{Margin, attribute_loss, bradley_terry_loss};
use joust_model::{Device, sequence_ratings, sequence_scores};
use tch::{Kind, Tensor};

use crate::{Error, Master, Result, Update};

/// Options of the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RewardLoss {
    /// Weight of `(s⁺ + s⁻)²`, which keeps scores near 0; 0 leaves it out.
    pub center_coefficient: f64,
    /// What the pairs' margins do; `None` leaves them out.
    pub margin: Option<Margin>,
}

/// One preference as whole sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardPair {
    /// Ids of prompt and chosen answer.
    pub chosen: Vec<u32>,
    /// Ids of prompt and rejected answer.
    pub rejected: Vec<u32>,
    /// By how much chosen is better, at least 0; read where the loss has a use for it.
    pub margin: f64,
}

/// Updates a reward model once by [`bradley_terry_loss`], mean over the pairs of all micro-batches.
///
/// # Returns
/// The loss, the share of pairs in which chosen scores higher, and the update.
///
/// # Errors
/// [`Error::LossNotFinite`] or [`Error::GradientNotFinite`]; then nothing was updated.
pub fn reward_step(
    master: &mut Master,
    micro_batches: &[Vec<&RewardPair>],
    params: &RewardLoss,
    device: &Device,
) -> Result<(f64, f64, Update)> {
    let pairs = micro_batches.iter().map(Vec::len).sum::<usize>();
    let (mut value, mut right) = (0.0, 0.0);
    for batch in micro_batches.iter().filter(|batch| !batch.is_empty()) {
        let _permit = device.acquire();
        let sides = batch.iter().map(|pair| &pair.chosen).chain(batch.iter().map(|pair| &pair.rejected));
        let scores = sequence_scores(&master.model()?, &sides.cloned().collect::<Vec<_>>());
        let count = batch.len() as i64;
        let (chosen, rejected) = (scores.narrow(0, 0, count), scores.narrow(0, count, count));
        let margins: Vec<f64> = batch.iter().map(|pair| pair.margin).collect();
        let margins = Tensor::from_slice(&margins).to_device(device.torch());
        let margins = params.margin.map(|margin| (&margins, margin));
        let losses = bradley_terry_loss(&chosen, &rejected, margins, params.center_coefficient)?;
        let loss = losses.sum(Kind::Float) / pairs as f64;
        let part = loss.double_value(&[]);
        if !part.is_finite() {
            master.forget();
            let examples = format!("(a batch of {count} pairs)");
            return Err(Error::LossNotFinite { step: master.optimizer.updates, value: part, examples });
        }
        value += part;
        right += chosen.gt_tensor(&rejected).to_kind(Kind::Float).sum(Kind::Float).double_value(&[]);
        loss.backward();
    }
    let _permit = device.acquire();
    Ok((value, right / pairs.max(1) as f64, master.update()?))
}

/// One answered prompt with its ratings.
#[derive(Debug, Clone, PartialEq)]
pub struct RatedSequence {
    /// Ids of prompt and answer.
    pub ids: Vec<u32>,
    /// One a label of the model; NaN where it was not rated.
    pub ratings: Vec<f64>,
}

/// Updates a model that rates attributes once by [`attribute_loss`], mean over the answers of all micro-batches.
///
/// # Returns
/// The loss and the update.
///
/// # Errors
/// As [`reward_step`].
pub fn rating_step(
    master: &mut Master,
    micro_batches: &[Vec<&RatedSequence>],
    device: &Device,
) -> Result<(f64, Update)> {
    let answers = micro_batches.iter().map(Vec::len).sum::<usize>();
    let mut value = 0.0;
    for batch in micro_batches.iter().filter(|batch| !batch.is_empty()) {
        let _permit = device.acquire();
        let sequences: Vec<Vec<u32>> = batch.iter().map(|rated| rated.ids.clone()).collect();
        let ratings = sequence_ratings(&master.model()?, &sequences);
        let labels: Vec<f64> = batch.iter().flat_map(|rated| rated.ratings.iter().copied()).collect();
        let labels = Tensor::from_slice(&labels).view([batch.len() as i64, -1]).to_device(device.torch());
        let loss = attribute_loss(&ratings, &labels)?.sum(Kind::Float) / answers as f64;
        let part = loss.double_value(&[]);
        if !part.is_finite() {
            master.forget();
            let examples = format!("(a batch of {} answers)", batch.len());
            return Err(Error::LossNotFinite { step: master.optimizer.updates, value: part, examples });
        }
        value += part;
        loss.backward();
    }
    let _permit = device.acquire();
    Ok((value, master.update()?))
}
