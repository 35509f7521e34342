//! AdamW on float32 tensors.
//!
//! See "Decoupled Weight Decay Regularization", Loshchilov and Hutter, <https://arxiv.org/abs/1711.05101>, Algorithm 2.

use joust_torch::{Step, adamw};
use tch::Tensor;

use super::Update;
use crate::Result;

/// Constants of AdamW, with PyTorch's defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWParams {
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay; matrices only, as Hugging Face's trainer has it.
    pub weight_decay: f64,
}

impl Default for AdamWParams {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Updates a weight and its two moments; decays matrices only.
pub(super) fn update(params: &AdamWParams, at: &Update<'_>, moments: [&Tensor; 2]) -> Result<()> {
    let AdamWParams { beta1, beta2, epsilon, weight_decay } = *params;
    let Update { weight, gradient, copy, learning_rate, scale, updates } = *at;
    let decay = if weight.dim() > 1 { learning_rate * weight_decay } else { 0.0 };
    let step = Step { scale, decay, beta1, beta2, epsilon, learning_rate, updates };
    Ok(adamw(weight, gradient, moments, copy, &step)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{Optimizer, OptimizerParams, optimizer::tests::four_updates};

    /// Three updates of `w³`, learning rate 0.1, weight decay 0.01, by `torch.optim.AdamW` in float64.
    #[test]
    fn updates_match_torch() {
        let params = AdamWParams { weight_decay: 0.01, ..AdamWParams::default() };
        let weight = Tensor::from_slice(&[1.0f64, -2.0]).view([1, 2]).set_requires_grad(true);
        let weights = joust_model::Weights([("w".to_owned(), weight)].into());
        let mut adam = Optimizer::new(OptimizerParams::AdamW(params), &weights);
        for _ in 0..3 {
            let mut weight = weights.0["w"].shallow_clone();
            weight.zero_grad();
            weight.pow_tensor_scalar(3).sum(tch::Kind::Double).backward();
            tch::no_grad(|| adam.update(&weights, 0.1, 1.0)).expect("updated");
        }
        let got = Vec::<f64>::try_from(weights.0["w"].view(-1)).expect("floats");
        for (got, expected) in got.iter().zip([0.701_519_672_866_840_4, -2.294_198_161_587_519_5]) {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
        assert!(four_updates(OptimizerParams::AdamW(params), 0.1).iter().all(|value| value.is_finite()));
    }
}
