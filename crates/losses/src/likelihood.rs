//! Losses without a reference model: the likelihood itself, mostly averaged over tokens, is the reward.
//!
//! `π̄ = log π(y|x)/|y|` in nats a token. They neither sample nor score.

use tch::Tensor;

use crate::{
    LossOutput, PairLogps, Result,
    error::{not_negative, positive},
};

/// The largest mean log-prob that odds are taken of: at 0 they are infinite.
const BELOW_CERTAIN: f64 = -1e-6;
/// Largest exponent of AlphaPO's reward; e⁸⁰ is finite in float32.
const LARGEST_EXPONENT: f64 = 80.0;

/// Computes log(1 − eˣ) for x < 0 without cancellation.
fn log1mexp(x: &Tensor) -> Tensor {
    let near = x.gt(-std::f64::consts::LN_2);
    // Each branch gets a harmless input where the other is used, so that no NaN reaches the gradient.
    let small = x.where_self(&near, &x.full_like(-0.5));
    let large = x.where_self(&near.logical_not(), &x.full_like(-1.0));
    (-small.expm1()).log().where_self(&near, &(-large.exp()).log1p())
}

/// Computes SimPO.
///
/// `L = −log σ(β·(π̄⁺ − π̄⁻) − γ)` (Meng et al., <https://arxiv.org/abs/2405.14734>).
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`] without a reference; `beta > 0`, 2 to 10; `gamma ≥ 0`, a target margin of 0.25 to 0.55 times β. Rewards are `β·π̄`.
/// [`crate::Error::Missing`] without lengths.
pub fn simpo_loss(inputs: &PairLogps, beta: f64, gamma: f64) -> Result<LossOutput> {
    positive("simpo", [("beta", beta)])?;
    not_negative("simpo", [("gamma", gamma)])?;
    let mean = inputs.mean_logps("simpo")?;
    let per_pair = inputs.mix(|w, l| -(beta * (&mean[w] - &mean[l]) - gamma).log_sigmoid());
    Ok(LossOutput::new(per_pair, &mean, beta))
}

/// Computes AlphaPO: SimPO with the reward `r = (1 − e^{−α·π̄})/α`.
///
/// `L = −log σ(β·(r⁺ − r⁻) − γ)` (Gupta et al., <https://arxiv.org/abs/2501.03884>). For α > 0 the gradient grows exponentially as a
/// likelihood falls: the exponent is held at 80, and the gradient's norm should be clipped.
///
/// # Arguments, returns and errors
/// As [`simpo_loss`]; `alpha > 0`, 0.25 in the paper.
pub fn alphapo_loss(inputs: &PairLogps, beta: f64, gamma: f64, alpha: f64) -> Result<LossOutput> {
    positive("alphapo", [("beta", beta), ("alpha", alpha)])?;
    not_negative("alphapo", [("gamma", gamma)])?;
    let reward = inputs.mean_logps("alphapo")?.map(|mean| -(-alpha * mean).clamp_max(LARGEST_EXPONENT).expm1() / alpha);
    let per_pair = inputs.mix(|w, l| -(beta * (&reward[w] - &reward[l]) - gamma).log_sigmoid());
    Ok(LossOutput::new(per_pair, &reward, beta))
}

/// Computes contrastive preference optimization.
///
/// `L = −log σ(β·(log π(y⁺|x) − log π(y⁻|x))) − α·π̄⁺` (Xu et al., <https://arxiv.org/abs/2401.08417>). The likelihood term is a mean over
/// each answer's tokens; TRL takes one mean over all chosen tokens of the batch.
///
/// # Arguments, returns and errors
/// As [`simpo_loss`]; `alpha ≥ 0`, 1 in the paper. Rewards are `β·log π`.
pub fn cpo_loss(inputs: &PairLogps, beta: f64, alpha: f64) -> Result<LossOutput> {
    positive("cpo", [("beta", beta)])?;
    not_negative("cpo", [("alpha", alpha)])?;
    let (sums, mean) = (inputs.policy()?.map(Tensor::shallow_clone), inputs.mean_logps("cpo")?);
    let per_pair = inputs.mix(|w, l| -(beta * (&sums[w] - &sums[l])).log_sigmoid() - alpha * &mean[w]);
    Ok(LossOutput::new(per_pair, &sums, beta))
}

/// Computes the odds-ratio loss, ORPO.
///
/// `L = −π̄⁺ − λ·log σ(logit p̄⁺ − logit p̄⁻)` with `p̄ = e^{π̄}` (Hong et al., <https://arxiv.org/abs/2403.07691>).
///
/// # Arguments, returns and errors
/// As [`simpo_loss`]; `lambda ≥ 0`, 0.1 in the paper. Rewards are `λ·π̄`.
pub fn orpo_loss(inputs: &PairLogps, lambda: f64) -> Result<LossOutput> {
    not_negative("orpo", [("lambda", lambda)])?;
    let mean = inputs.mean_logps("orpo")?;
    let logit = [&mean[0], &mean[1]].map(|mean| {
        let held = mean.clamp_max(BELOW_CERTAIN);
        &held - log1mexp(&held)
    });
    let per_pair = inputs.mix(|w, l| -&mean[w] - lambda * (&logit[w] - &logit[l]).log_sigmoid());
    Ok(LossOutput::new(per_pair, &mean, lambda))
}

/// Computes ASFT: likelihood of the chosen answer and token-mean unlikelihood of the rejected one.
///
/// `L = −(1+λ)·π̄⁺ − λ·log(1 − e^{π̄⁻})`, which equals `−π̄⁺ − λ·[log σ(logit p̄⁺) + log σ(−logit p̄⁻)]` (Wang et al.,
/// <https://arxiv.org/abs/2409.10571>, in the form of <https://arxiv.org/abs/2502.01237>).
///
/// # Arguments, returns and errors
/// As [`simpo_loss`]; `lambda ≥ 0`, 0.1. Rewards are `λ·π̄`.
pub fn asft_loss(inputs: &PairLogps, lambda: f64) -> Result<LossOutput> {
    not_negative("asft", [("lambda", lambda)])?;
    let mean = inputs.mean_logps("asft")?;
    let unlikely = [&mean[0], &mean[1]].map(|mean| log1mexp(&mean.clamp_max(BELOW_CERTAIN)));
    let per_pair = inputs.mix(|w, l| -(1.0 + lambda) * &mean[w] - lambda * &unlikely[l]);
    Ok(LossOutput::new(per_pair, &mean, lambda))
}

/// Computes DPO with the likelihood of the chosen answer beside it, RPO.
///
/// `L = −log σ(β·Δ) − α·π̄⁺`, Δ the difference of the log-ratios to the reference (Pang et al., <https://arxiv.org/abs/2404.19733>).
///
/// # Arguments, returns and errors
/// As [`crate::dpo_loss`]; `alpha ≥ 0`, 1 in the paper; [`crate::Error::Missing`] without lengths.
pub fn rpo_loss(inputs: &PairLogps, beta: f64, alpha: f64) -> Result<LossOutput> {
    positive("rpo", [("beta", beta)])?;
    not_negative("rpo", [("alpha", alpha)])?;
    let (h, mean) = (inputs.log_ratios("rpo")?, inputs.mean_logps("rpo")?);
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l])).log_sigmoid() - alpha * &mean[w]);
    Ok(LossOutput::new(per_pair, &h, beta))
}
