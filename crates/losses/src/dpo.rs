//! Direct preference optimization.
//!
//! Sequence-level loss on preference pairs; it neither samples nor scores.
//! See "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
//! Rafailov et al., <https://arxiv.org/abs/2305.18290>.

use crate::{Error, LossOutput, PairLogps, Result, error::positive};

/// Hyper-parameters of [`dpo_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DpoParams {
    /// Strength of the hold to the reference, above 0; 0.1 is usual. Too small drifts, too large learns nothing.
    pub beta: f64,
    /// Probability in [0, 0.5) that a label is wrong; 0 trusts every label.
    pub label_smoothing: f64,
}

/// Computes the DPO loss for a batch of preference pairs.
///
/// `L = −log σ(β·Δ)`, with `Δ = (log π(y⁺|x) − log π_ref(y⁺|x)) − (log π(y⁻|x) − log π_ref(y⁻|x))` (Eq. 7).
/// With `label_smoothing = ε > 0`: `L = −(1−ε)·log σ(β·Δ) − ε·log σ(−β·Δ)` (cDPO, Eq. 3 of <https://ericmitchell.ai/cdpo.pdf>).
/// With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`.
///
/// # Arguments
/// * `inputs` - policy and reference sums in nats, `[B]`; the two policy tensors carry gradient.
/// * `params` - `beta > 0`; `label_smoothing` in `[0, 0.5)`.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `β·(log π − log π_ref)` `[B]`, detached.
///
/// # Errors
/// [`Error::Shape`], [`Error::NotAVector`], [`Error::Kind`] or [`Error::Device`] for tensors that do not fit; [`Error::Missing`] without a
/// reference; [`Error::Param`] for a hyper-parameter out of range.
pub fn dpo_loss(inputs: &PairLogps, params: &DpoParams) -> Result<LossOutput> {
    let DpoParams { beta, label_smoothing: eps } = *params;
    positive("dpo", "beta", beta)?;
    if !(0.0..0.5).contains(&eps) {
        return Err(Error::Param {
            loss: "dpo",
            name: "label_smoothing",
            value: eps,
            expected: "at least 0 and below 0.5",
        });
    }
    let [hc, hr] = inputs.log_ratios("dpo")?;
    let per_pair = inputs.mix([&hc, &hr], |winner, loser| {
        let logits = beta * (winner - loser); // [B]
        // libtorch's log_sigmoid is min(x, 0) − log1p(exp(−|x|)), which never overflows.
        let loss = -(1.0 - eps) * logits.log_sigmoid(); // Eq. 7
        if eps == 0.0 { loss } else { loss - eps * (-logits).log_sigmoid() } // cDPO, Eq. 3
    });
    Ok(LossOutput::new(per_pair, [&hc, &hr], beta))
}
