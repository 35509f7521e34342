//! Supervised fine-tuning: next-token cross-entropy on completions.

use joust_model::{Device, Llama, SequenceBatch};
use tch::{Kind, Tensor};

use crate::{Error, Master, Result, Update};

/// A sequence of which some ids are learned.
#[derive(Debug, Clone, Copy)]
pub struct SftSequence<'a> {
    /// What comes before the first id that is learned; at least one.
    pub prompt_ids: &'a [u32],
    /// The ids from there on; at least one.
    pub completion_ids: &'a [u32],
    /// One an id of the completion: whether it is learned.
    pub learned: &'a [bool],
}

impl SftSequence<'_> {
    /// Counts the ids that are learned.
    pub fn tokens(&self) -> usize {
        self.learned.iter().filter(|learned| **learned).count()
    }
}

/// Packs sequences, with a weight for each of their completion tokens: 1 where it is learned, else 0.
fn packed(part: &[SftSequence<'_>], device: tch::Device) -> (SequenceBatch, Tensor) {
    let pairs: Vec<(&[u32], &[u32])> = part.iter().map(|s| (s.prompt_ids, s.completion_ids)).collect();
    let weights: Vec<f32> = part.iter().flat_map(|s| s.learned.iter().map(|learned| f32::from(*learned))).collect();
    (SequenceBatch::new(&pairs, device), Tensor::from_slice(&weights).to_device(device))
}

/// Updates the masters once on (prompt, completion) pairs, in micro-batches; every completion token is learned.
///
/// # Returns
/// As [`masked_sft_step`].
///
/// # Errors
/// As [`masked_sft_step`].
pub fn sft_step(
    master: &mut Master,
    batch: &[(&[u32], &[u32])],
    micro: usize,
    device: &Device,
) -> Result<(f64, Update)> {
    let longest = batch.iter().map(|(_, completion)| completion.len()).max().unwrap_or_default();
    let all = vec![true; longest];
    let mut sequences = Vec::with_capacity(batch.len());
    for (prompt_ids, completion_ids) in batch {
        sequences.push(SftSequence { prompt_ids, completion_ids, learned: &all[..completion_ids.len()] });
    }
    masked_sft_step(master, &sequences, micro, device)
}

/// Updates the masters once on sequences, in micro-batches.
///
/// The loss is the mean over all tokens of the step that are learned, in nats, whatever the micro-batches.
///
/// # Returns
/// The loss and the update.
///
/// # Errors
/// [`Error::LossNotFinite`] or [`Error::GradientNotFinite`]; then nothing was updated.
pub fn masked_sft_step(
    master: &mut Master,
    batch: &[SftSequence<'_>],
    micro: usize,
    device: &Device,
) -> Result<(f64, Update)> {
    let tokens: usize = batch.iter().map(SftSequence::tokens).sum();
    let mut total = 0.0;
    for part in batch.chunks(micro.max(1)) {
        let _permit = device.acquire();
        let (sequences, weights) = packed(part, device.torch());
        let loss = -(sequences.token_logprobs(&master.model()?) * weights).sum(Kind::Float) / tokens as f64;
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            master.forget();
            let examples = format!("(a micro-batch of {} sequences)", part.len());
            return Err(Error::LossNotFinite { step: master.optimizer.updates, value, examples });
        }
        total += value;
        loss.backward();
    }
    let _permit = device.acquire();
    Ok((total, master.update()?))
}

/// Computes the summed negative log-likelihood in nats and the number of completion tokens of each pair.
pub fn perplexity_parts(model: &Llama, batch: &[(&[u32], &[u32])], device: &Device) -> Vec<(f64, usize)> {
    let _permit = device.acquire();
    let sequences = SequenceBatch::new(batch, device.torch());
    let logps = tch::no_grad(|| sequences.logps(model));
    let lengths = sequences.lengths();
    (0..lengths.len()).map(|i| (-logps.double_value(&[i as i64]), lengths[i])).collect()
}

/// Computes the summed negative log-likelihood in nats of the tokens that are learned, and their number, over all sequences.
pub fn masked_nll(model: &Llama, batch: &[SftSequence<'_>], device: &Device) -> (f64, usize) {
    let _permit = device.acquire();
    let (sequences, weights) = packed(batch, device.torch());
    let nll = tch::no_grad(|| -(sequences.token_logprobs(model) * weights).sum(Kind::Double));
    (nll.double_value(&[]), batch.iter().map(SftSequence::tokens).sum())
}
