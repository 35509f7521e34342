//! RMSprop, the optimizer of DPO's and SPPO's own code, as `torch.optim.RMSprop` without momentum.

use tch::Tensor;

use super::Update;

/// Constants of RMSprop, with PyTorch's defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsPropParams {
    /// Decay of the mean of squares, in [0, 1).
    pub alpha: f64,
    /// Added to the root of the mean of squares.
    pub epsilon: f64,
    /// Decoupled weight decay, matrices only; PyTorch's is an L2 term of the gradient.
    pub weight_decay: f64,
}

impl Default for RmsPropParams {
    fn default() -> Self {
        Self { alpha: 0.99, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Updates a weight and its mean of squares: `v ← αv + (1−α)g²`, `w ← w − η·g/(√v + ε)`.
pub(super) fn update(params: &RmsPropParams, at: &Update<'_>, square: &Tensor) {
    let (mut weight, mut square) = (at.weight.shallow_clone(), square.shallow_clone());
    let gradient = at.scaled();
    at.decay(params.weight_decay);
    // In place: what comes back is another handle on the same memory, and libtorch's errors panic.
    let _ = square.g_mul_scalar_(params.alpha);
    let _ = square.addcmul_(&gradient, &(&gradient * (1.0 - params.alpha)));
    let root = square.sqrt().g_add_scalar_(params.epsilon);
    let _ = weight.addcdiv_(&(gradient * -at.learning_rate), &root);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        OptimizerParams,
        optimizer::tests::{assert_torch, four_updates},
    };

    #[test]
    fn updates_match_torch() {
        let expected = [
            0.744_570_631_149_476_5,
            -2.291_626_650_590_924_6,
            0.252_061_838_252_624_2,
            0.510_387_569_802_136_5,
            2.730_850_319_155_506_2,
            -1.796_759_439_126_667_5,
            0.588_304_555_242_770_6,
            -1.293_442_644_717_248_2,
        ];
        assert_torch(&four_updates(OptimizerParams::RmsProp(RmsPropParams::default()), 0.01), &expected);
    }
}
