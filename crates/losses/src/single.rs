//! Losses on single answers: each is desirable or not, or has a score, and is compared with nothing but the step's average.
//!
//! `h = log π(y|x) − log π_ref(y|x)` in nats. What couples the answers of a step comes in from outside, so that micro-batches change nothing.

use tch::Tensor;

use crate::{
    Error, Result,
    error::{alike, not_negative, positive},
};

/// Summed log-probs of a batch of answers, borrowed, in nats; every tensor has shape `[B]` and kind float32 or float64.
#[derive(Debug, Clone, Copy)]
pub struct SingleLogps<'a> {
    policy: &'a Tensor,
    reference: &'a Tensor,
    labels: &'a Tensor,
    baseline: f64,
    values: Option<&'a Tensor>,
}

/// What a loss on single answers returns; the caller reduces over answers.
#[derive(Debug)]
pub struct SingleOutput {
    /// Loss of each answer, `[B]`; carries the gradient.
    pub per_answer: Tensor,
    /// Implicit rewards, `[B]`, detached.
    pub rewards: Tensor,
}

impl<'a> SingleLogps<'a> {
    /// Starts from log π(y|x), which carries the gradient, log π_ref(y|x), and the labels: the probability in [0, 1] that the answer is
    /// desirable, or its reward for [`dro_loss`].
    pub fn new(policy: &'a Tensor, reference: &'a Tensor, labels: &'a Tensor) -> Self {
        Self { policy, reference, labels, baseline: 0.0, values: None }
    }

    /// Adds the step's average that each answer is compared with: z₀ of [`kto_loss`] in nats, δ of [`bco_unpaired_loss`] as a reward.
    pub fn with_baseline(self, baseline: f64) -> Self {
        Self { baseline, ..self }
    }

    /// Adds a critic's value of each prompt, in the unit of the reward, without gradient.
    pub fn with_values(self, values: &'a Tensor) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Returns h after checking every tensor.
    fn log_ratios(&self) -> Result<Tensor> {
        let expected = self.policy.size();
        if expected.len() != 1 {
            return Err(Error::NotAVector { found: expected });
        }
        alike([
            ("policy", Some(self.policy)),
            ("reference", Some(self.reference)),
            ("labels", Some(self.labels)),
            ("values", self.values),
        ])?;
        Ok(self.policy - self.reference.detach())
    }

    /// Mixes what a desirable and an undesirable answer would cost, `[B]`; a sure label leaves no trace of the other.
    fn mix(&self, desirable: &Tensor, undesirable: &Tensor) -> Tensor {
        let p = self.labels.detach().to_kind(self.policy.kind());
        &p * desirable + (1.0 - &p) * undesirable
    }
}

/// Computes KTO: `w_D·(1 − σ(β(h − z₀)))` of a desirable answer, `w_U·(1 − σ(β(z₀ − h)))` of an undesirable one (Ethayarajh et al.,
/// <https://arxiv.org/abs/2402.01306>).
///
/// # Arguments
/// * `inputs` - the baseline is `z₀ = max(0, mean of h over prompts with the answers of other prompts)`.
/// * `beta` - 0.1 in the paper, above 0.
/// * `desirable_weight`, `undesirable_weight` - at least 0; the paper keeps the ratio of the weighted counts within 1 and 4/3.
///
/// # Errors
/// [`Error::NotAVector`], [`Error::Shape`], [`Error::Kind`], [`Error::Device`], [`Error::Param`].
pub fn kto_loss(
    inputs: &SingleLogps,
    beta: f64,
    desirable_weight: f64,
    undesirable_weight: f64,
) -> Result<SingleOutput> {
    positive("kto", [("beta", beta)])?;
    not_negative("kto", [("desirable_weight", desirable_weight), ("undesirable_weight", undesirable_weight)])?;
    let h = inputs.log_ratios()?;
    let z = beta * (&h - inputs.baseline);
    let per_answer = inputs.mix(&(desirable_weight * (-&z).sigmoid()), &(undesirable_weight * z.sigmoid()));
    Ok(SingleOutput { per_answer, rewards: beta * h.detach() })
}

/// Computes the binary classifier loss on single answers: `−log σ(βh − δ)` of a desirable answer, `−log σ(−(βh − δ))` of an undesirable one
/// (Jung et al., <https://arxiv.org/abs/2404.04656>).
///
/// # Arguments
/// * `inputs` - the baseline is δ, the mean reward βh.
/// * `beta` - 0.1 in TRL, above 0.
///
/// # Errors
/// As [`kto_loss`].
pub fn bco_unpaired_loss(inputs: &SingleLogps, beta: f64) -> Result<SingleOutput> {
    positive("bco_unpaired", [("beta", beta)])?;
    let h = inputs.log_ratios()?;
    let z = beta * &h - inputs.baseline;
    Ok(SingleOutput { per_answer: inputs.mix(&-z.log_sigmoid(), &-(-&z).log_sigmoid()), rewards: beta * h.detach() })
}

/// Computes direct reward optimization's loss of the policy, DRO-V: `L = 1/(2τ)·(r − V − τh)²` with τ = `beta`, so that the gradient in log π is
/// `−(r − V − τh)`, the paper's rescaled one (Richemond et al., <https://arxiv.org/abs/2405.19107>).
///
/// # Arguments
/// * `inputs` - labels are rewards; the values are V(x).
/// * `beta` - τ, above 0; 1 in the paper's experiments, on rewards of mean 0 and variance 1.
///
/// # Errors
/// As [`kto_loss`], and [`Error::Missing`] without values.
pub fn dro_loss(inputs: &SingleLogps, beta: f64) -> Result<SingleOutput> {
    let (residual, h) = dro_residual(inputs, beta)?;
    Ok(SingleOutput { per_answer: residual.square() / (2.0 * beta), rewards: beta * h.detach() })
}

/// Computes the critic's loss of DRO-V: `½(r − V − τh)²`, `[B]`; here the values carry the gradient and h does not.
///
/// # Arguments and errors
/// As [`dro_loss`].
pub fn dro_value_loss(inputs: &SingleLogps, values: &Tensor, beta: f64) -> Result<Tensor> {
    let fixed = inputs.policy.detach();
    let (rest, _) = dro_residual(&SingleLogps { policy: &fixed, values: Some(&values.zeros_like()), ..*inputs }, beta)?;
    Ok(0.5 * (rest - values).square())
}

/// Returns r − V − τh and h.
fn dro_residual(inputs: &SingleLogps, beta: f64) -> Result<(Tensor, Tensor)> {
    positive("dro", [("beta", beta)])?;
    let h = inputs.log_ratios()?;
    let missing = Error::Missing { loss: "dro", input: "a critic's values", setter: "with_values" };
    let values = inputs.values.ok_or(missing)?.detach();
    Ok((inputs.labels.detach() - values - beta * &h, h))
}
