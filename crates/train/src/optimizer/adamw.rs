//! AdamW on float32 tensors.
//!
//! See "Decoupled Weight Decay Regularization", Loshchilov and Hutter, <https://arxiv.org/abs/1711.05101>, Algorithm 2.

use std::collections::BTreeMap;

use joust_model::Weights;
use joust_torch::{Step, adamw};
use tch::Tensor;

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

/// First and second moments by key, float32.
#[derive(Debug)]
pub struct AdamW {
    params: AdamWParams,
    /// Updates made.
    pub updates: u64,
    /// First moments.
    pub first: BTreeMap<String, Tensor>,
    /// Second moments.
    pub second: BTreeMap<String, Tensor>,
}

impl AdamW {
    /// Starts with zero moments for every tensor of `weights`.
    pub fn new(params: AdamWParams, weights: &Weights) -> Self {
        let zeros = || weights.0.iter().map(|(name, tensor)| (name.clone(), tensor.detach().zeros_like())).collect();
        Self { params, updates: 0, first: zeros(), second: zeros() }
    }

    /// Updates every weight in place from its gradient times `scale`; weights without a gradient stay.
    ///
    /// # Errors
    /// [`crate::Error::Border`] if libtorch refuses.
    pub fn update(&mut self, weights: &Weights, learning_rate: f64, scale: f64) -> Result<()> {
        self.update_with(weights, &BTreeMap::new(), learning_rate, scale)
    }

    /// Updates as [`AdamW::update`] does, and rounds each new weight into its copy, if it has one.
    pub(crate) fn update_with(
        &mut self,
        weights: &Weights,
        copies: &BTreeMap<String, Tensor>,
        learning_rate: f64,
        scale: f64,
    ) -> Result<()> {
        self.updates += 1;
        let AdamWParams { beta1, beta2, epsilon, weight_decay } = self.params;
        for (name, weight) in &weights.0 {
            let gradient = weight.grad();
            if !gradient.defined() {
                continue;
            }
            let decay = if weight.dim() > 1 { learning_rate * weight_decay } else { 0.0 };
            let step = Step { scale, decay, beta1, beta2, epsilon, learning_rate, updates: self.updates };
            let moments =
                [&self.first, &self.second].map(|all| all.get(name).expect("moments were made for every weight"));
            adamw(&weight.detach(), &gradient, moments, copies.get(name), &step)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// w = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    /// o = torch.optim.AdamW([w], lr=0.1, weight_decay=0.01)
    /// for _ in range(3): o.zero_grad(); (w**3).sum().backward(); o.step()
    /// ```
    #[test]
    fn three_updates_match_torch() {
        let weight = Tensor::from_slice(&[1.0f64, -2.0]).view([1, 2]).set_requires_grad(true);
        let weights = Weights([("w".to_owned(), weight)].into());
        let mut adam = AdamW::new(AdamWParams { weight_decay: 0.01, ..AdamWParams::default() }, &weights);
        for _ in 0..3 {
            let mut weight = weights.0["w"].shallow_clone();
            weight.zero_grad();
            weight.pow_tensor_scalar(3).sum(tch::Kind::Double).backward();
            tch::no_grad(|| adam.update(&weights, 0.1, 1.0)).unwrap();
        }
        let got = Vec::<f64>::try_from(weights.0["w"].view(-1)).unwrap();
        let expected = EXPECTED;
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
    }

    const EXPECTED: [f64; 2] = [0.701_519_672_866_840_4, -2.294_198_161_587_519_5];
}
