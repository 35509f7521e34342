//! Supervised fine-tuning: next-token cross-entropy on completions.

use joust_model::{Device, Llama, SequenceBatch};
use tch::Kind;

use crate::{Error, Master, Result, Update};

/// Updates the masters once on (prompt, completion) pairs, in micro-batches.
///
/// The loss is the mean over all completion tokens of the step, in nats, whatever the micro-batches.
///
/// # Returns
/// The loss and the update.
///
/// # Errors
/// [`Error::LossNotFinite`] or [`Error::GradientNotFinite`]; then nothing was updated.
pub fn sft_step(
    master: &mut Master,
    batch: &[(&[u32], &[u32])],
    micro: usize,
    device: &Device,
) -> Result<(f64, Update)> {
    let tokens: usize = batch.iter().map(|(_, completion)| completion.len()).sum();
    let mut total = 0.0;
    for part in batch.chunks(micro.max(1)) {
        let _permit = device.acquire();
        let sequences = SequenceBatch::new(part, device.torch());
        let loss = -sequences.token_logprobs(&master.model()?).sum(Kind::Float) / tokens as f64;
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
