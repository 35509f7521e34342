//! Sequence likelihood calibration: hinge losses on pairs.
//!
//! Two losses share the name SLiC in public code; here `hinge` is the one held to a reference and `slic_hf` the
//! reference-free original. They neither sample nor score.
//! See "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", Zhao et al., <https://arxiv.org/abs/2305.10425>, and
//! "Statistical Rejection Sampling Improves Preference Optimization", Liu et al., <https://arxiv.org/abs/2309.06657>.

use crate::{Error, LossOutput, PairLogps, Result, error::positive};

/// Hyper-parameters of [`hinge_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HingeParams {
    /// Inverse margin, above 0: pairs with `Δ ≥ 1/beta` give no gradient. The online paper uses 0.002.
    pub beta: f64,
}

/// Hyper-parameters of [`slic_hf_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlicHfParams {
    /// Margin in nats, at least 0, that the chosen answer's log-probability must lead by; 1 is usual.
    pub delta: f64,
    /// Weight, at least 0, of the likelihood of the chosen answer, which keeps the policy from forgetting it; 0.1 or less.
    pub lambda: f64,
}

/// Computes the reference-normalised hinge loss for a batch of preference pairs.
///
/// `L = max(0, 1 − β·Δ)`, with `Δ = (log π(y⁺|x) − log π_ref(y⁺|x)) − (log π(y⁻|x) − log π_ref(y⁻|x))`
/// (SLiC of <https://arxiv.org/abs/2402.04792>, hinge of RSO Eq. 8).
/// With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`.
///
/// # Arguments
/// * `inputs` - policy and reference sums in nats, `[B]`; the two policy tensors carry gradient.
/// * `params` - `beta > 0`.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `β·(log π − log π_ref)` `[B]`, detached.
///
/// # Errors
/// As [`crate::dpo_loss`].
pub fn hinge_loss(inputs: &PairLogps, params: &HingeParams) -> Result<LossOutput> {
    let beta = params.beta;
    positive("hinge", "beta", beta)?;
    let [hc, hr] = inputs.log_ratios("hinge")?;
    let per_pair = inputs.mix([&hc, &hr], |winner, loser| (beta * (loser - winner) + 1.0).relu());
    Ok(LossOutput::new(per_pair, [&hc, &hr], beta))
}

/// Computes the reference-free SLiC-HF loss for a batch of preference pairs.
///
/// `L = max(0, δ − log π(y⁺|x) + log π(y⁻|x)) − λ·log π(y⁺|x)` (Eq. 1 with the chosen answer as the regularisation target).
/// With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`.
///
/// # Arguments
/// * `inputs` - policy sums in nats, `[B]`, carrying gradient; a reference is not read.
/// * `params` - `delta ≥ 0` in nats; `lambda ≥ 0`.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `log π(y|x)` `[B]` in nats, detached.
///
/// # Errors
/// [`Error::Shape`], [`Error::NotAVector`], [`Error::Kind`] or [`Error::Device`] for tensors that do not fit;
/// [`Error::Param`] for a hyper-parameter out of range.
pub fn slic_hf_loss(inputs: &PairLogps, params: &SlicHfParams) -> Result<LossOutput> {
    let SlicHfParams { delta, lambda } = *params;
    for (name, value) in [("delta", delta), ("lambda", lambda)] {
        if !value.is_finite() || value < 0.0 {
            return Err(Error::Param { loss: "slic_hf", name, value, expected: "a finite number of at least 0" });
        }
    }
    let policy = inputs.policy()?;
    let per_pair = inputs.mix(policy, |winner, loser| (delta - winner + loser).relu() - lambda * winner); // Eq. 1
    Ok(LossOutput::new(per_pair, policy, 1.0))
}
