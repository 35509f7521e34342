//! DPO under another divergence than the reverse KL: the policy is held to the reference by an f-divergence.
//!
//! `hc`, `hr` as in the other pair losses; `L = −log σ(β·(g(hc) − g(hr)))` with `g(h) = f'(e^h)` ("Beyond Reverse KL", Wang et al.,
//! <https://arxiv.org/abs/2309.16240>). Reverse KL has `g(h) = h + 1`, which is DPO.

use tch::Tensor;

use crate::{
    LossOutput, PairLogps, Result,
    error::{check, positive},
};

/// `e^(largest)` and the sum of several such stay finite in float32.
const LARGEST: f64 = 80.0;

fn loss_of(inputs: &PairLogps, beta: f64, g: [Tensor; 2]) -> LossOutput {
    let per_pair = inputs.mix(|w, l| -(beta * (&g[w] - &g[l])).log_sigmoid());
    LossOutput::new(per_pair, &g, beta)
}

/// Computes DPO under the Jensen-Shannon divergence: `g(h) = h − log(1 + e^h) + log 2 = log σ(h) + log 2`.
///
/// Bounded above: an answer that the policy already prefers to the reference gains little by more.
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`].
pub fn dpo_js_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("dpo_js", [("beta", beta)])?;
    let g = inputs.log_ratios("dpo_js")?.map(|h| h.log_sigmoid() + std::f64::consts::LN_2);
    Ok(loss_of(inputs, beta, g))
}

/// Computes DPO under the α-divergence: `g(h) = (1 − e^{−αh})/α`, up to a constant; α → 0 is DPO, α = 1 the forward KL.
///
/// The exponent is held at 80, where the gradient is cut, so that nothing is infinite in float32.
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`]; `alpha` in (0, 1], TRL's default is 1.
pub fn dpo_alpha_loss(inputs: &PairLogps, beta: f64, alpha: f64) -> Result<LossOutput> {
    positive("dpo_alpha", [("beta", beta)])?;
    check("dpo_alpha", [("alpha", alpha)], "above 0 and at most 1", |a| a > 0.0 && a <= 1.0)?;
    let g = inputs.log_ratios("dpo_alpha")?.map(|h| -(-alpha * h).clamp_max(LARGEST).expm1() / alpha);
    Ok(loss_of(inputs, beta, g))
}
