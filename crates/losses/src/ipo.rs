//! Identity preference optimization.
//!
//! Squared losses that pull the log-ratio gap to a finite target, so that a sure label cannot drive it to infinity; they
//! neither sample nor score. The gradient is unbounded: clip its global norm.
//! See "A General Theoretical Paradigm to Understand Learning from Human Preferences",
//! Azar et al., <https://arxiv.org/abs/2310.12036>.

use crate::{
    LossOutput, PairLogps, Result,
    error::{check, positive},
};

/// Computes the IPO loss on summed log-probabilities for a batch of preference pairs.
///
/// `L = (Δ − 1/(2β))²`, with `Δ = (log π(y⁺|x) − log π_ref(y⁺|x)) − (log π(y⁻|x) − log π_ref(y⁻|x))` (Eq. 17).
/// With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`, which is `(Δ − (2p−1)/(2β))²` and a constant; with pairs sampled
/// from the policy its stationary point is the regularised Nash equilibrium
/// (Calandriello et al., <https://arxiv.org/abs/2403.08635>).
///
/// # Arguments
/// * `inputs` - policy and reference sums in nats, `[B]`; the two policy tensors carry gradient.
/// * `beta` - τ of the paper, above 0: the target gap is `1/(2·beta)`. Sums want 0.1 to 1.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `β·(log π − log π_ref)` `[B]`, detached.
///
/// # Errors
/// As [`crate::dpo_loss`].
pub fn ipo_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("ipo", [("beta", beta)])?;
    let h = inputs.log_ratios("ipo")?;
    let per_pair = inputs.mix(|w, l| (&h[w] - &h[l] - 0.5 / beta).square()); // Eq. 17
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes the IPO loss on length-normalised log-ratios for a batch of preference pairs.
///
/// `L = (hc/|y⁺| − hr/|y⁻| − 1/(2β))²`, with `h = log π(y|x) − log π_ref(y|x)`: the form that TRL's offline trainer and
/// HALOs use. It wants a much smaller `beta` than [`ipo_loss`]. A length of zero counts as one.
///
/// # Arguments
/// * `inputs` - policy and reference sums in nats and lengths in tokens, `[B]`; the two policy tensors carry gradient.
/// * `beta` - τ of the paper, above 0; averages want 0.01 to 0.1.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `β·(log π − log π_ref)/|y|` `[B]`, detached.
///
/// # Errors
/// As [`crate::dpo_loss`], and [`crate::Error::Missing`] without lengths.
pub fn ipo_avg_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("ipo_avg", [("beta", beta)])?;
    let ([hc, hr], [chosen, rejected]) = (inputs.log_ratios("ipo_avg")?, inputs.lengths("ipo_avg")?);
    let h = [hc / chosen, hr / rejected];
    let per_pair = inputs.mix(|w, l| (&h[w] - &h[l] - 0.5 / beta).square());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes BoNBoN, which imitates the best of n answers and contrasts it with the worst.
///
/// `L = −α·log π(y⁺|x) + (1−α)·(Δ − 1/(2β_n))²` with `1/(2β_n) = (n−1)·Σ_{k=1}^{n−1} 1/k` (Gui et al.,
/// <https://arxiv.org/abs/2406.00832>); y⁺ is the best and y⁻ the worst of n answers of the reference.
///
/// # Arguments, returns and errors
/// As [`ipo_loss`]; `n` at least 2, a whole number; `alpha` in [0, 1], 0.005 in the paper. Rewards are `β_n·h`.
pub fn bonbon_loss(inputs: &PairLogps, n: f64, alpha: f64) -> Result<LossOutput> {
    check("bonbon", [("n", n)], "a whole number of at least 2 and below 1000", |n| {
        (2.0..1000.0).contains(&n) && n.fract() == 0.0
    })?;
    check("bonbon", [("alpha", alpha)], "a number in [0, 1]", |alpha| (0.0..=1.0).contains(&alpha))?;
    let (h, policy) = (inputs.log_ratios("bonbon")?, inputs.policy()?);
    let target = (n - 1.0) * (1..n as u32).map(|k| 1.0 / f64::from(k)).sum::<f64>();
    let per_pair = inputs.mix(|w, l| (1.0 - alpha) * (&h[w] - &h[l] - target).square() - alpha * policy[w]);
    Ok(LossOutput::new(per_pair, &h, 0.5 / target))
}
