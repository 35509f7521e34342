//! Direct preference optimization and its logistic relatives.
//!
//! Sequence-level losses on preference pairs; they neither sample nor score. Throughout, `hc = log π(y⁺|x) − log π_ref(y⁺|x)`,
//! `hr` the same of the rejected answer, and `Δ = hc − hr`.
//! See "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
//! Rafailov et al., <https://arxiv.org/abs/2305.18290>.

use tch::Tensor;

use crate::{
    LossOutput, PairLogps, Result,
    error::{check, not_negative, positive},
};

/// Checks a share of wrong labels.
fn smoothing(loss: &'static str, name: &'static str, value: f64) -> Result<()> {
    check(loss, [(name, value)], "at least 0 and below 0.5", |eps| (0.0..0.5).contains(&eps))
}

/// Computes the DPO loss for a batch of preference pairs.
///
/// `L = −log σ(β·Δ)` (Eq. 7). With `label_smoothing = ε > 0`: `L = −(1−ε)·log σ(β·Δ) − ε·log σ(−β·Δ)` (cDPO, Eq. 3 of
/// <https://ericmitchell.ai/cdpo.pdf>). With soft labels `p`: `p·L(y⁺, y⁻) + (1−p)·L(y⁻, y⁺)`.
///
/// # Arguments
/// * `inputs` - policy and reference sums in nats, `[B]`; the two policy tensors carry gradient.
/// * `beta` - strength of the hold to the reference, above 0; 0.1 is usual. Too small drifts, too large learns nothing.
/// * `label_smoothing` - probability in [0, 0.5) that a label is wrong; 0 trusts every label.
///
/// # Returns
/// [`LossOutput`]: weighted losses `[B]`, not reduced; rewards `β·(log π − log π_ref)` `[B]`, detached.
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::NotAVector`], [`crate::Error::Kind`] or [`crate::Error::Device`] for tensors that do
/// not fit; [`crate::Error::Missing`] without a reference; [`crate::Error::Param`] for a hyper-parameter out of range.
pub fn dpo_loss(inputs: &PairLogps, beta: f64, label_smoothing: f64) -> Result<LossOutput> {
    positive("dpo", [("beta", beta)])?;
    smoothing("dpo", "label_smoothing", label_smoothing)?;
    let h = inputs.log_ratios("dpo")?;
    let per_pair = inputs.mix(|w, l| {
        let logits = beta * (&h[w] - &h[l]); // [B]
        // libtorch's log_sigmoid is min(x, 0) − log1p(exp(−|x|)), which never overflows.
        let loss = -(1.0 - label_smoothing) * logits.log_sigmoid(); // Eq. 7
        if label_smoothing == 0.0 { loss } else { loss - label_smoothing * (-logits).log_sigmoid() } // cDPO, Eq. 3
    });
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes robust DPO, which is unbiased when a share ε of the labels is flipped.
///
/// `L = (−(1−ε)·log σ(β·Δ) + ε·log σ(−β·Δ)) / (1−2ε)` (Chowdhury et al., <https://arxiv.org/abs/2403.00409>).
///
/// # Arguments, returns and errors
/// As [`dpo_loss`], with `label_smoothing` ε in [0, 0.5).
pub fn robust_loss(inputs: &PairLogps, beta: f64, label_smoothing: f64) -> Result<LossOutput> {
    positive("robust", [("beta", beta)])?;
    smoothing("robust", "label_smoothing", label_smoothing)?;
    let h = inputs.log_ratios("robust")?;
    let eps = label_smoothing;
    let per_pair = inputs.mix(|w, l| {
        let logits = beta * (&h[w] - &h[l]);
        ((eps - 1.0) * logits.log_sigmoid() + eps * (-logits).log_sigmoid()) / (1.0 - 2.0 * eps)
    });
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes DPO with a length term, R-DPO.
///
/// `L = −log σ(β·Δ + α·(|y⁺| − |y⁻|))`, lengths in tokens (Park et al., <https://arxiv.org/abs/2403.19159>): a longer chosen
/// answer is learnt from less.
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; `alpha ≥ 0` per token, 0.01 to 0.05 is usual; [`crate::Error::Missing`] without lengths.
pub fn r_dpo_loss(inputs: &PairLogps, beta: f64, alpha: f64) -> Result<LossOutput> {
    positive("r_dpo", [("beta", beta)])?;
    not_negative("r_dpo", [("alpha", alpha)])?;
    let (h, n) = (inputs.log_ratios("r_dpo")?, inputs.lengths("r_dpo")?);
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l]) + alpha * (&n[w] - &n[l])).log_sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes DPO on log-ratios averaged over tokens (`sigmoid_norm`; "DPO-norm" in open-instruct, TRL's `sigmoid_norm`).
///
/// `L = −log σ(β·(hc/|y⁺| − hr/|y⁻|))` (Lambert et al., <https://arxiv.org/abs/2411.15124>).
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; averages want a larger `beta`, 5 is usual; [`crate::Error::Missing`] without lengths.
pub fn sigmoid_norm_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("sigmoid_norm", [("beta", beta)])?;
    let ([hc, hr], [chosen, rejected]) = (inputs.log_ratios("sigmoid_norm")?, inputs.lengths("sigmoid_norm")?);
    let h = [hc / chosen, hr / rejected];
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l])).log_sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes DPO with an offset from the score gap, ODPO.
///
/// `L = −log σ(β·Δ − α·log(s⁺ − s⁻))` (Amini et al., <https://arxiv.org/abs/2402.10571>). A pair whose scores do not differ, or
/// differ the other way, has loss and gradient 0. The offset is data and carries no gradient; labels are hard.
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; `alpha ≥ 0`, 1 is usual, 0 is DPO; [`crate::Error::Missing`] without scores.
pub fn odpo_loss(inputs: &PairLogps, beta: f64, alpha: f64) -> Result<LossOutput> {
    positive("odpo", [("beta", beta)])?;
    not_negative("odpo", [("alpha", alpha)])?;
    let (h, gap) = (inputs.log_ratios("odpo")?, inputs.score_gap("odpo")?);
    let differs = gap.gt(0.0);
    // 1 stands in where there is no gap, so that no infinity meets the mask in the backward pass.
    let offset = alpha * gap.where_self(&differs, &gap.ones_like()).log();
    let loss = -(beta * (&h[0] - &h[1]) - offset).log_sigmoid();
    let per_pair = inputs.weigh(loss.where_self(&differs, &loss.zeros_like()));
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes DPO-positive, which holds up the likelihood of the chosen answer (Smaug).
///
/// `L = −log σ(β·(Δ − λ·max(0, log π_ref(y⁺|x) − log π(y⁺|x))))` (Pal et al., <https://arxiv.org/abs/2402.13228>, Eq. 3).
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; `lambda ≥ 0`, 50 is the paper's, with β = 0.3. The gradient grows with λ: clip its norm.
pub fn dpop_loss(inputs: &PairLogps, beta: f64, lambda: f64) -> Result<LossOutput> {
    positive("dpop", [("beta", beta)])?;
    not_negative("dpop", [("lambda", lambda)])?;
    let h = inputs.log_ratios("dpop")?;
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l] - lambda * (-&h[w]).relu())).log_sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes DPO-Shift, which weakens the rejected answer's term.
///
/// `L = −log σ(β·(hc − λ·hr))` (Yang et al., <https://arxiv.org/abs/2502.07599>); λ = 1 is DPO.
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; `lambda` in (0, 1], the paper's best is 0.95.
pub fn dpo_shift_loss(inputs: &PairLogps, beta: f64, lambda: f64) -> Result<LossOutput> {
    positive("dpo_shift", [("beta", beta)])?;
    check("dpo_shift", [("lambda", lambda)], "above 0 and at most 1", |value| value > 0.0 && value <= 1.0)?;
    let h = inputs.log_ratios("dpo_shift")?;
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - lambda * &h[l])).log_sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes DiscoPOP, the mixture of logistic and exponential loss that a language model discovered.
///
/// `L = (1−m)·(−log σ(z)) + m·e^{−z}` with `z = β·Δ` and `m = σ(z/τ)`; gradient flows through m (Lu et al.,
/// <https://arxiv.org/abs/2406.08414>). `m·e^{−z}` is computed as `exp(−z + log σ(z/τ))`, which is finite where the product is not.
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; `tau > 0`, 0.05 as `beta` in the paper.
pub fn discopop_loss(inputs: &PairLogps, beta: f64, tau: f64) -> Result<LossOutput> {
    positive("discopop", [("beta", beta), ("tau", tau)])?;
    let h = inputs.log_ratios("discopop")?;
    let per_pair = inputs.mix(|w, l| {
        let z: Tensor = beta * (&h[w] - &h[l]);
        let log_m = (&z / tau).log_sigmoid();
        (-&z / tau).sigmoid() * -z.log_sigmoid() + (log_m - z).exp()
    });
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes EXO on pairs: the reverse Kullback-Leibler divergence from the smoothed labels.
///
/// `L = σ(z)·(log σ(z) − log(1−ε)) + σ(−z)·(log σ(−z) − log ε)` with `z = β·Δ` (Ji et al., <https://arxiv.org/abs/2402.00856>). Its gradient vanishes on pairs that are far on the wrong side, unlike DPO's.
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; `label_smoothing` ε in (0, 0.5), 0.001 is usual.
pub fn exo_pair_loss(inputs: &PairLogps, beta: f64, label_smoothing: f64) -> Result<LossOutput> {
    positive("exo_pair", [("beta", beta), ("label_smoothing", label_smoothing)])?;
    smoothing("exo_pair", "label_smoothing", label_smoothing)?;
    let h = inputs.log_ratios("exo_pair")?;
    let (log_right, log_wrong) = ((-label_smoothing).ln_1p(), label_smoothing.ln());
    let per_pair = inputs.mix(|w, l| {
        let z: Tensor = beta * (&h[w] - &h[l]);
        z.sigmoid() * (z.log_sigmoid() - log_right) + (-&z).sigmoid() * ((-&z).log_sigmoid() - log_wrong)
    });
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes exploratory preference optimization, XPO: DPO plus the likelihood of what the reference already answers.
///
/// `L = −log σ(β·Δ) + α·log π(y_ref|x)`, y_ref being the reference's answer of the pair, chosen or rejected (Xie et al.,
/// <https://arxiv.org/abs/2405.21046>, on the current batch). The second term has no lower bound: keep α times the length far below 1.
///
/// # Arguments, returns and errors
/// As [`dpo_loss`]; `alpha ≥ 0`, 1e-5 in TRL, 0 is DPO; [`crate::Error::Missing`] without who gave the chosen answer.
pub fn xpo_loss(inputs: &PairLogps, beta: f64, alpha: f64) -> Result<LossOutput> {
    positive("xpo", [("beta", beta)])?;
    not_negative("xpo", [("alpha", alpha)])?;
    let (h, known) = (inputs.log_ratios("xpo")?, inputs.policy_of_reference_answers("xpo")?);
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l])).log_sigmoid() + alpha * &known);
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes length-desensitised DPO: tokens behind the shorter answer's length count `alpha` times, in the policy and in the reference.
///
/// `L = −log σ(β·(h̃c − h̃r))`, `h̃ = h_shared + α·h_tail` (Liu et al., <https://arxiv.org/abs/2409.06411>).
///
/// # Arguments, returns and errors
/// As [`dpo_loss`] with tails; `alpha` in [0, 1]: 1 is DPO, 0 sees only the shared length.
pub fn ld_dpo_loss(inputs: &PairLogps, beta: f64, alpha: f64) -> Result<LossOutput> {
    positive("ld_dpo", [("beta", beta)])?;
    check("ld_dpo", [("alpha", alpha)], "in [0, 1]", |a| (0.0..=1.0).contains(&a))?;
    let (whole, tail) = (inputs.log_ratios("ld_dpo")?, inputs.tail_ratios("ld_dpo")?);
    let h = [0, 1].map(|i: usize| &whole[i] - (1.0 - alpha) * &tail[i]);
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l])).log_sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes reward-gap matching: the implicit margin is regressed on the judge's, `L = (β·Δ − η·(s⁺ − s⁻))²` (RPO's squared form in
/// NeMo-Aligner; Nvidia, <https://arxiv.org/abs/2406.11704>).
///
/// # Arguments, returns and errors
/// As [`dpo_loss`] with scores; `eta` at least 0 scales the judge's gap. Soft labels do not apply: the gap says how sure it is.
pub fn reward_gap_loss(inputs: &PairLogps, beta: f64, eta: f64) -> Result<LossOutput> {
    positive("reward_gap", [("beta", beta)])?;
    not_negative("reward_gap", [("eta", eta)])?;
    let h = inputs.log_ratios("reward_gap")?;
    let per_pair = inputs.weigh((beta * (&h[0] - &h[1]) - eta * inputs.score_gap("reward_gap")?).square());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes reward-gap matching as a divergence: `L = KL(σ(η·(s⁺ − s⁻)) ‖ σ(β·Δ))` of the two Bernoulli distributions (as
/// [`reward_gap_loss`], NeMo-Aligner's backward form).
///
/// # Arguments, returns and errors
/// As [`reward_gap_loss`].
pub fn reward_gap_kl_loss(inputs: &PairLogps, beta: f64, eta: f64) -> Result<LossOutput> {
    positive("reward_gap_kl", [("beta", beta)])?;
    not_negative("reward_gap_kl", [("eta", eta)])?;
    let h = inputs.log_ratios("reward_gap_kl")?;
    let (z, gap) = (beta * (&h[0] - &h[1]), eta * inputs.score_gap("reward_gap_kl")?);
    let side = |sign: f64| (sign * &gap).sigmoid() * ((sign * &gap).log_sigmoid() - (sign * &z).log_sigmoid());
    Ok(LossOutput::new(inputs.weigh(side(1.0) + side(-1.0)), &h, beta))
}
