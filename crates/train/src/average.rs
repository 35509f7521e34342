//! The averaged policy: an exponential moving average of the masters.

use joust_model::Weights;
use tch::Kind;

/// `θ̄ ← decay·θ̄ + (1 − decay)·θ` after each update, from `θ̄ = θ` on, in float32 (Nash-EMA, appendix F.3 of
/// <https://arxiv.org/abs/2312.00886>, read as the recursion that it names).
#[derive(Debug)]
pub struct Average {
    /// Share of the average that stays at each update, in [0, 1).
    pub decay: f64,
    /// The average; the names are the masters'.
    pub weights: Weights,
}

impl Average {
    /// Starts at the given weights.
    pub fn new(decay: f64, weights: &Weights) -> Self {
        Self { decay, weights: weights.snapshot(Kind::Float) }
    }

    /// Moves towards `masters`.
    pub(crate) fn follow(&mut self, masters: &Weights) {
        let _no_grad = tch::no_grad_guard();
        for (name, average) in &mut self.weights.0 {
            // In place: what comes back is another handle on the same memory, and libtorch's errors panic.
            let _ = average.lerp_(&masters.0[name].detach(), 1.0 - self.decay);
        }
    }
}
