//! Losses that say where each answer's own log-ratio should go, not only how far apart the two should be.
//!
//! `hc = log π(y⁺|x) − log π_ref(y⁺|x)`, `hr` the same of the rejected answer. They neither sample nor score.

use crate::{LossOutput, PairLogps, Result, error::positive};

/// Computes noise-contrastive alignment on pairs, NCA.
///
/// `L = −log σ(β·hc) − ½·log σ(−β·hc) − ½·log σ(−β·hr)` (Chen et al., <https://arxiv.org/abs/2402.05369>): the chosen
/// likelihood is kept from falling.
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`]; `beta > 0`, 0.01 in the paper.
pub fn nca_pair_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("nca_pair", [("beta", beta)])?;
    let h = inputs.log_ratios("nca_pair")?;
    let per_pair = inputs.mix(|w, l| {
        let (up, down) = (beta * &h[w], beta * &h[l]);
        -up.log_sigmoid() - 0.5 * (-up).log_sigmoid() - 0.5 * (-down).log_sigmoid()
    });
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes the binary classifier loss on pairs, BCO without a shift.
///
/// `L = −log σ(β·hc) − log σ(−β·hr)` (Jung et al., <https://arxiv.org/abs/2404.04656>, with δ = 0; TRL's code, whose paper index
/// prints another formula).
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`]; `beta > 0`, 0.01 in the paper.
pub fn bco_pair_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("bco_pair", [("beta", beta)])?;
    let h = inputs.log_ratios("bco_pair")?;
    let per_pair = inputs.mix(|w, l| -(beta * &h[w]).log_sigmoid() - (-beta * &h[l]).log_sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes APO-zero: chosen answers up, rejected ones down.
///
/// `L = 1 − σ(β·hc) + σ(β·hr)` (D'Oosterlinck et al., <https://arxiv.org/abs/2408.06266>); for answers better than the model's.
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`].
pub fn apo_zero_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("apo_zero", [("beta", beta)])?;
    let h = inputs.log_ratios("apo_zero")?;
    let per_pair = inputs.mix(|w, l| (-beta * &h[w]).sigmoid() + (beta * &h[l]).sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes APO-down: both answers down, the rejected one further.
///
/// `L = σ(β·hc) + 1 − σ(β·(hc − hr))` (D'Oosterlinck et al., <https://arxiv.org/abs/2408.06266>); for answers worse than the model's.
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`].
pub fn apo_down_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("apo_down", [("beta", beta)])?;
    let h = inputs.log_ratios("apo_down")?;
    let per_pair = inputs.mix(|w, l| (beta * &h[w]).sigmoid() + (beta * (&h[l] - &h[w])).sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes the SPPO loss on a pair: each log-ratio is regressed on what multiplicative weights would make of it.
///
/// `L = ½·[(hc − (P⁺ − ½)/β)² + (hr − (P⁻ − ½)/β)²]` with the win rates P⁺ and P⁻ of the two answers among the prompt's K; without win
/// rates the pair's own p and 1 − p, 1 and 0 for hard labels (Wu et al.,
/// <https://arxiv.org/abs/2405.00675>, with log Z replaced by η/2, η = 1/β, the ½ of the authors' code). The reference is the sampler
/// of the iteration. The gradient is unbounded: clip its norm.
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`]; `beta > 0`, the paper's 0.001 is η = 1000.
pub fn sppo_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("sppo", [("beta", beta)])?;
    let h = inputs.log_ratios("sppo")?;
    let target = inputs.win_rates().map(|rate| (rate - 0.5) / beta);
    let per_pair = inputs.weigh(0.5 * ((&h[0] - &target[0]).square() + (&h[1] - &target[1]).square()));
    Ok(LossOutput::new(per_pair, &h, beta))
}
