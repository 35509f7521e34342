//! Sequence likelihood calibration: hinge losses on pairs.
//!
//! Two losses share the name SLiC in public code; here `hinge` is the one held to a reference and `slic_hf` the
//! reference-free original. They neither sample nor score.
//! See "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", Zhao et al., <https://arxiv.org/abs/2305.10425>, and
//! "Statistical Rejection Sampling Improves Preference Optimization", Liu et al., <https://arxiv.org/abs/2309.06657>.

use tch::Tensor;

use crate::{
    LossOutput, PairLogps, Result,
    error::{not_negative, positive},
};

/// Computes the reference-normalised hinge loss for a batch of preference pairs.
///
/// `L = max(0, 1 − β·Δ)`, with `Δ = (log π(y⁺|x) − log π_ref(y⁺|x)) − (log π(y⁻|x) − log π_ref(y⁻|x))`
/// (SLiC of <https://arxiv.org/abs/2402.04792>, hinge of RSO Eq. 8).
/// With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`.
///
/// # Arguments
/// * `inputs` - policy and reference sums in nats, `[B]`; the two policy tensors carry gradient.
/// * `beta` - inverse margin, above 0: pairs with `Δ ≥ 1/beta` give no gradient. The online paper uses 0.002.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `β·(log π − log π_ref)` `[B]`, detached.
///
/// # Errors
/// As [`crate::dpo_loss`].
pub fn hinge_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("hinge", [("beta", beta)])?;
    let h = inputs.log_ratios("hinge")?;
    let per_pair = inputs.mix(|w, l| (beta * (&h[l] - &h[w]) + 1.0).relu());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes the reference-free SLiC-HF loss for a batch of preference pairs.
///
/// `L = max(0, δ − log π(y⁺|x) + log π(y⁻|x)) − λ·log π(y⁺|x)` (Eq. 1 with the chosen answer as the regularisation target).
/// With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`.
///
/// # Arguments
/// * `inputs` - policy sums in nats, `[B]`, carrying gradient; a reference is not read.
/// * `delta` - margin in nats, at least 0, that the chosen answer's log-probability must lead by; 1 is usual.
/// * `lambda` - weight, at least 0, of the chosen answer's likelihood, which keeps the policy from forgetting it; 0.1 or less.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `log π(y|x)` `[B]` in nats, detached.
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::NotAVector`], [`crate::Error::Kind`] or [`crate::Error::Device`] for tensors that do not
/// fit; [`crate::Error::Param`] for a hyper-parameter out of range.
pub fn slic_hf_loss(inputs: &PairLogps, delta: f64, lambda: f64) -> Result<LossOutput> {
    not_negative("slic_hf", [("delta", delta), ("lambda", lambda)])?;
    let policy = inputs.policy()?.map(Tensor::shallow_clone);
    let per_pair = inputs.mix(|w, l| (delta - &policy[w] + &policy[l]).relu() - lambda * &policy[w]); // Eq. 1
    Ok(LossOutput::new(per_pair, &policy, 1.0))
}
