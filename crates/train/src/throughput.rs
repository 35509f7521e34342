//! How fast a step was, beside what the device could do.

use std::time::{Duration, Instant};

use joust_model::Device;
use tch::{Kind, Tensor};

use crate::{Prepared, Result, StepMetrics, Trainer};

/// Side of the square matrices whose product tells a device's rate.
const SIDE: i64 = 1024;

/// Measures the rate of a product of matrices in a kind, in floating-point operations a second: the best of three.
fn matrix_rate(device: &Device, kind: Kind) -> f64 {
    let _permit = device.acquire();
    let a = Tensor::ones([SIDE, SIDE], (kind, device.torch()));
    let time = || {
        let began = Instant::now();
        // Reading an element waits for a device that works behind.
        let _ = a.matmul(&a).double_value(&[0, 0]);
        began.elapsed().as_secs_f64()
    };
    time();
    let best = (0..3).map(|_| time()).fold(f64::INFINITY, f64::min);
    2.0 * (SIDE * SIDE * SIDE) as f64 / best
}

impl Trainer {
    /// Tells tokens a second and the model's share of the matrix rate (model FLOPs utilisation, PaLM, <https://arxiv.org/abs/2204.02311>, appendix
    /// B) of a step that took so long, over all ranks, which all call it.
    ///
    /// Tokens are those of all sequences; a prompt that answers share is computed once, and its operations count once. A computed token costs 2
    /// operations a weight forward and 4 backward, 2 where an adapter is trained and the weight has no gradient; embeddings that are only looked up
    /// and adapters are not counted. The reference costs one forward.
    /// The rate is measured once, in the kind that the model computes in.
    ///
    /// # Errors
    /// [`crate::Error::Border`] if a rank is lost.
    pub fn throughput(&mut self, step: &[Vec<Prepared>], epochs: u64, took: Duration) -> Result<StepMetrics> {
        let count = |p: &Prepared| {
            let (prompt, answers) = (p.example.prompt_ids.len(), p.example.answers.iter());
            let completions: usize = answers.clone().map(|answer| answer.token_ids.len()).sum();
            (answers.count() * prompt + completions, prompt + completions)
        };
        let counts = step.iter().flatten().map(count);
        let (tokens, computed) = counts.fold((0, 0), |all, own| (all.0 + own.0, all.1 + own.1));
        let (tokens, computed) = (tokens as f64, computed as f64);
        let held = step.iter().flatten().flat_map(|p| &p.known).any(|known| !known.reference.is_empty());
        let config = &self.master.config;
        let rate = *self.rate.get_or_insert_with(|| matrix_rate(&self.device, config.dtype.kind()));
        let looked_up = if config.tie_word_embeddings { 0 } else { config.vocab_size * config.hidden_size };
        let weights = (config.parameters() - looked_up) as f64;
        let pass = if self.master.is_adapter() { 4.0 } else { 6.0 };
        let work = weights * computed * (pass * epochs as f64 + if held { 2.0 } else { 0.0 });
        let (tokens, work, rate) = (self.ranks().sum(tokens)?, self.ranks().sum(work)?, self.ranks().sum(rate)?);
        let seconds = took.as_secs_f64();
        Ok(StepMetrics::from([
            ("throughput/train_tokens_per_s".into(), tokens * epochs as f64 / seconds),
            ("throughput/mfu".into(), work / seconds / rate),
        ]))
    }
}
