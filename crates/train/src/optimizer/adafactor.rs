//! Adafactor, the optimizer of OAIF: a matrix keeps the means of squares of its rows and columns only.
//!
//! "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", Shazeer and Stern, <https://arxiv.org/abs/1804.04235>, Algorithms 4 and 5, as
//! `torch.optim.Adafactor`.

use tch::{Kind, Tensor};

use super::Update;

/// Constants of Adafactor, with PyTorch's defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdafactorParams {
    /// The mean of squares forgets with `step^beta2_decay`; below 0.
    pub beta2_decay: f64,
    /// Smallest root mean square of a weight that scales its learning rate.
    pub epsilon: f64,
    /// Largest root mean square of an update.
    pub clip: f64,
    /// Decoupled weight decay, matrices only.
    pub weight_decay: f64,
}

impl Default for AdafactorParams {
    fn default() -> Self {
        Self { beta2_decay: -0.8, epsilon: 1e-3, clip: 1.0, weight_decay: 0.0 }
    }
}

/// Smallest estimate of a square, by kind: the squared spacing of numbers at 1.
fn smallest(kind: Kind) -> f64 {
    if kind == Kind::Double { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

fn root_mean_square(values: &Tensor) -> f64 {
    values.square().mean(Kind::Double).double_value(&[]).sqrt()
}

/// Updates a weight and its means of squares: of a matrix those of its rows `[R, 1]` and columns `[1, C]`, else those of its elements.
///
/// The learning rate is a share of the weight's own size, at most `1/√step`.
pub(super) fn update(params: &AdafactorParams, at: &Update<'_>, means: &[&Tensor]) {
    let mut weight = at.weight.shallow_clone();
    let (gradient, step) = (at.scaled(), at.updates as f64);
    let forget = step.powf(params.beta2_decay);
    let rate = at.learning_rate.min(1.0 / step.sqrt()) * root_mean_square(&weight).max(params.epsilon);
    at.decay(params.weight_decay);
    let kind = gradient.kind();
    let squares = gradient.square();
    let estimate = match means {
        [rows, columns] => {
            let (mut rows, mut columns) = (rows.shallow_clone(), columns.shallow_clone());
            // In place: what comes back is another handle on the same memory, and libtorch's errors panic.
            let _ = rows.lerp_(&squares.mean_dim(-1i64, true, kind), forget);
            let _ = columns.lerp_(&squares.mean_dim(-2i64, true, kind), forget);
            let mean = rows.mean_dim(-2i64, true, kind).clamp_min(smallest(kind));
            rows.matmul(&columns) / mean
        }
        _ => {
            let mut mean = means[0].shallow_clone();
            // In place, as above.
            let _ = mean.lerp_(&squares, forget);
            mean
        }
    };
    let change = gradient * estimate.clamp_min(smallest(kind).powi(2)).rsqrt();
    let excess = (root_mean_square(&change) / params.clip).max(1.0);
    // In place, as above.
    let _ = weight.g_add_(&(change * (-rate / excess)));
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
            0.174_723_056_009_321_98,
            -2.715_493_551_030_372,
            0.312_428_887_618_714_6,
            0.484_743_112_459_812_66,
            2.413_446_940_920_884_7,
            -2.345_257_178_266_952_5,
            0.711_056_110_181_366_5,
            -1.323_525_678_140_513_4,
        ];
        assert_torch(&four_updates(OptimizerParams::Adafactor(AdafactorParams::default()), 0.1), &expected);
    }
}
