//! Pluralistic alignment by ideal points: each user prefers the answer that lies nearer to a point of their own, a mixture of few prototypes.
//!
//! Chen et al., "PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences", <https://arxiv.org/abs/2406.08469>, its form A with distances.

use tch::Tensor;

use crate::{Error, Result, error::alike};

/// Keeps the gradient of a distance finite where an answer lies on the point itself.
const NEAREST: f64 = 1e-12;

/// Computes the ideal point of each user, `softmax(W)·P`, `[U, D]`.
///
/// # Arguments
/// * `weights` - W, `[U, K]`: how much of each prototype a user has, before the softmax.
/// * `prototypes` - P, `[K, D]`, in the space of the answers.
///
/// # Errors
/// [`Error::Shape`] for weights of another number of prototypes.
pub fn ideal_points(weights: &Tensor, prototypes: &Tensor) -> Result<Tensor> {
    let (found, known) = (weights.size(), prototypes.size());
    if found.len() != 2 || known.len() != 2 || found[1] != known[0] {
        return Err(Error::Shape { name: "weights", expected: vec![-1, known[0]], found });
    }
    Ok(weights.softmax(1, weights.kind()).matmul(prototypes))
}

/// Computes the distance of each answer from a point, `[B]`, of `[B, D]` each; less is better.
pub fn distances(answers: &Tensor, points: &Tensor) -> Tensor {
    ((answers - points).square().sum_dim_intlist(1i64, false, answers.kind()) + NEAREST).sqrt()
}

/// Computes PAL's loss, `−log σ(‖f(y⁻) − u‖ − ‖f(y⁺) − u‖)`.
///
/// # Arguments
/// * `chosen`, `rejected` - f of the answers, float32 or float64 `[B, D]`; carry the gradient.
/// * `points` - u of the pair's user, [`ideal_points`], `[B, D]`; carry the gradient.
///
/// # Returns
/// The loss of each pair, `[B]`; the caller reduces.
///
/// # Errors
/// [`Error::Shape`], [`Error::Kind`] or [`Error::Device`] for answers or points that do not fit.
pub fn pal_loss(chosen: &Tensor, rejected: &Tensor, points: &Tensor) -> Result<Tensor> {
    alike([("chosen", Some(chosen)), ("rejected", Some(rejected)), ("points", Some(points))])?;
    Ok(-(distances(rejected, points) - distances(chosen, points)).log_sigmoid())
}
