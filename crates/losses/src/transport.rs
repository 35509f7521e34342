//! Losses in which an answer meets another of the step than its own pair's, so the examples of a step are coupled.
//!
//! Alignment via optimal transport, Melnyk et al., <https://arxiv.org/abs/2406.05882>: distributions of rewards are compared, not pairs. Both are
//! sorted; what stands at the same rank meets. Joint preferences, DOVE: answers to different prompts meet.

use tch::Tensor;

use crate::{
    LossOutput, PairLogps, Result,
    error::{check, positive},
};

fn logistic(margin: &Tensor, beta: f64, label_smoothing: f64) -> Tensor {
    let z = beta * margin;
    -(1.0 - label_smoothing) * z.log_sigmoid() - label_smoothing * (-z).log_sigmoid()
}

fn validate(loss: &'static str, beta: f64, label_smoothing: f64) -> Result<()> {
    positive(loss, [("beta", beta)])?;
    check(loss, [("label_smoothing", label_smoothing)], "at least 0 and below 0.5", |eps| (0.0..0.5).contains(&eps))
}

/// Computes paired AOT: the policy's margins `πc − πr` and the reference's `refc − refr` are sorted over the step,
/// `L = −(1−ε)·log σ(β·d) − ε·log σ(−β·d)` with d the difference at a rank.
///
/// # Arguments
/// * `inputs` - matched is the reference's margin at the rank of the policy's, as the first of two tensors.
/// * `beta`, `label_smoothing` - as for [`crate::dpo_loss`].
///
/// # Returns and errors
/// As [`crate::dpo_loss`], and [`crate::Error::Missing`] without matched values.
pub fn aot_loss(inputs: &PairLogps, beta: f64, label_smoothing: f64) -> Result<LossOutput> {
    validate("aot", beta, label_smoothing)?;
    let [chosen, rejected] = inputs.policy()?;
    let [quantile, _] = inputs.matched("aot")?;
    let per_pair = inputs.weigh(logistic(&(chosen - rejected - quantile), beta, label_smoothing));
    Ok(LossOutput::new(per_pair, &inputs.log_ratios("aot")?, beta))
}

/// Computes unpaired AOT: the log-ratios of chosen and of rejected answers are sorted over the step, each distribution on its own.
///
/// Each log-ratio meets what stands at its rank on the other side, held fixed: over a whole step that is the gradient of
/// `Σ_k l(hc₍ₖ₎ − hr₍ₖ₎)`, however the step is cut. The value is that of the chosen answers' terms.
///
/// # Arguments
/// * `inputs` - matched are hr at the rank of each hc, and hc at the rank of each hr.
/// * `beta`, `label_smoothing` - as for [`crate::dpo_loss`].
///
/// # Returns and errors
/// As [`aot_loss`].
pub fn aot_unpaired_loss(inputs: &PairLogps, beta: f64, label_smoothing: f64) -> Result<LossOutput> {
    validate("aot_unpaired", beta, label_smoothing)?;
    let h = inputs.log_ratios("aot_unpaired")?;
    let [below, above] = inputs.matched("aot_unpaired")?;
    let of_chosen = logistic(&(&h[0] - below), beta, label_smoothing);
    let of_rejected = logistic(&(above - &h[1]), beta, label_smoothing);
    let per_pair = inputs.weigh(of_chosen + (&of_rejected - of_rejected.detach()));
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes DOVE: the chosen answer of one prompt meets the rejected one of another, and the judge's scores say who is better,
/// `L = −log σ(±β·(hc_i − hr_j))` (Bansal et al., <https://arxiv.org/abs/2404.00530>; prompt tokens stay out of the sums, the code's default).
///
/// As in [`aot_unpaired_loss`] each log-ratio meets its partner held fixed; a tie counts 0.
///
/// # Arguments
/// * `inputs` - matched are hr of what meets each chosen answer and hc of what meets each rejected one; signs say who is better.
/// * `beta` - as for [`crate::dpo_loss`].
///
/// # Returns and errors
/// As [`aot_loss`].
pub fn dove_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("dove", [("beta", beta)])?;
    let h = inputs.log_ratios("dove")?;
    let ([below, above], [of_chosen, of_rejected]) = (inputs.matched("dove")?, inputs.signs("dove")?);
    let cost = |margin: Tensor, sign: Tensor| -(beta * margin * &sign).log_sigmoid() * sign.abs();
    let own = cost(&h[0] - below, of_chosen);
    let other = cost(above - &h[1], of_rejected);
    let per_pair = inputs.weigh(own + (&other - other.detach()));
    Ok(LossOutput::new(per_pair, &h, beta))
}
