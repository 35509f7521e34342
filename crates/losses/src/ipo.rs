//! Identity preference optimization.
//!
//! Squared losses that pull the log-ratio gap to a finite target, so that a sure label cannot drive it to infinity; they
//! neither sample nor score. The gradient is unbounded: clip its global norm.
//! See "A General Theoretical Paradigm to Understand Learning from Human Preferences",
//! Azar et al., <https://arxiv.org/abs/2310.12036>.

use crate::{LossOutput, PairLogps, Result, error::positive};

/// Hyper-parameters of [`ipo_loss`] and [`ipo_avg_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IpoParams {
    /// τ of the paper, above 0: the target gap is `1/(2·beta)`. Sums want 0.1 to 1, averages 0.01 to 0.1.
    pub beta: f64,
}

/// Computes the IPO loss on summed log-probabilities for a batch of preference pairs.
///
/// `L = (Δ − 1/(2β))²`, with `Δ = (log π(y⁺|x) − log π_ref(y⁺|x)) − (log π(y⁻|x) − log π_ref(y⁻|x))` (Eq. 17).
/// With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`, which is `(Δ − (2p−1)/(2β))²` and a constant; with pairs sampled
/// from the policy its stationary point is the regularised Nash equilibrium
/// (Calandriello et al., <https://arxiv.org/abs/2403.08635>).
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
pub fn ipo_loss(inputs: &PairLogps, params: &IpoParams) -> Result<LossOutput> {
    let beta = params.beta;
    positive("ipo", "beta", beta)?;
    let [hc, hr] = inputs.log_ratios("ipo")?;
    let per_pair = inputs.mix([&hc, &hr], |winner, loser| (winner - loser - 0.5 / beta).square()); // Eq. 17
    Ok(LossOutput::new(per_pair, [&hc, &hr], beta))
}

/// Computes the IPO loss on length-normalised log-ratios for a batch of preference pairs.
///
/// `L = (hc/|y⁺| − hr/|y⁻| − 1/(2β))²`, with `h = log π(y|x) − log π_ref(y|x)`: the form that TRL's offline trainer and
/// HALOs use. It wants a much smaller `beta` than [`ipo_loss`]. A length of zero counts as one.
///
/// # Arguments
/// * `inputs` - policy and reference sums in nats and lengths in tokens, `[B]`; the two policy tensors carry gradient.
/// * `params` - `beta > 0`.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `β·(log π − log π_ref)/|y|` `[B]`, detached.
///
/// # Errors
/// As [`crate::dpo_loss`], and [`crate::Error::Missing`] without lengths.
pub fn ipo_avg_loss(inputs: &PairLogps, params: &IpoParams) -> Result<LossOutput> {
    let beta = params.beta;
    positive("ipo_avg", "beta", beta)?;
    let [hc, hr] = inputs.log_ratios("ipo_avg")?;
    let [chosen_tokens, rejected_tokens] = inputs.lengths("ipo_avg")?;
    let mean_chosen = hc / chosen_tokens; // [B]
    let mean_rejected = hr / rejected_tokens; // [B]
    let per_pair = inputs.mix([&mean_chosen, &mean_rejected], |winner, loser| (winner - loser - 0.5 / beta).square());
    Ok(LossOutput::new(per_pair, [&mean_chosen, &mean_rejected], beta))
}
