//! Policy gradients on the log-probs of tokens.

use tch::Tensor;

use crate::{
    Error, Result,
    error::{alike, not_negative, positive},
};

/// Largest |log ρ| that a ratio is computed from, as in OpenRLHF; `e^20` is finite in float32 and always clipped.
const MAX_LOG_RATIO: f64 = 20.0;
/// Largest importance ratio of an answer in [`nash_md_loss`]: it bounds the variance, and cuts the ratio of few answers.
const MAX_RATIO: f64 = 2.0;

/// Log-probs of the tokens of a batch of answers, borrowed, in nats at temperature 1.
///
/// Every tensor has shape `[B, T]` and kind float32 or float64. Answers are padded on the right; what lies behind an answer is
/// read by nothing.
#[derive(Debug, Clone, Copy)]
pub struct TokenLogps<'a> {
    policy: &'a Tensor,
    mask: &'a Tensor,
    reference: Option<&'a Tensor>,
    old: Option<&'a Tensor>,
}

/// What a policy gradient returns; the caller reduces over answers.
#[derive(Debug)]
pub struct GradientOutput {
    /// Loss of each answer, `[B]`; carries the gradient.
    pub per_answer: Tensor,
    /// Share of each answer's tokens whose ratio is clipped, `[B]`, detached; of one ratio an answer 0 or 1.
    pub clipped: Tensor,
}

impl<'a> TokenLogps<'a> {
    /// Starts from log π of each token, which carries the gradient, and 1 for tokens of the answer and 0 behind it.
    pub fn new(policy: &'a Tensor, mask: &'a Tensor) -> Self {
        Self { policy, mask, reference: None, old: None }
    }

    /// Adds log π_ref of each token, without gradient.
    pub fn with_reference(self, reference: &'a Tensor) -> Self {
        Self { reference: Some(reference), ..self }
    }

    /// Adds log π_old of each token: that of the policy which sampled it, without gradient.
    pub fn with_old(self, old: &'a Tensor) -> Self {
        Self { old: Some(old), ..self }
    }

    /// Checks every tensor that is present, and that `per_answer` holds one number an answer.
    fn check(&self, per_answer: &Tensor) -> Result<()> {
        let expected = self.policy.size();
        if expected.len() != 2 {
            return Err(Error::Shape { name: "policy", expected: vec![-1, -1], found: expected });
        }
        alike([
            ("policy", Some(self.policy)),
            ("mask", Some(self.mask)),
            ("reference", self.reference),
            ("old", self.old),
        ])?;
        match per_answer.size() {
            size if size == expected[..1] => Ok(()),
            found => Err(Error::Shape { name: "one number an answer", expected: expected[..1].to_vec(), found }),
        }
    }

    /// Returns log π − log π_ref of each token, 0 behind each answer.
    fn over_reference(&self, loss: &'static str) -> Result<Tensor> {
        let missing = Error::Missing { loss, input: "reference log-probabilities", setter: "with_reference" };
        Ok(self.only(&(self.policy - self.reference.ok_or(missing)?.detach())))
    }

    /// Returns log π − log π_old of each token, 0 behind each answer.
    fn over_old(&self, loss: &'static str) -> Result<Tensor> {
        let missing = Error::Missing { loss, input: "the sampler's log-probabilities", setter: "with_old" };
        Ok(self.only(&(self.policy - self.old.ok_or(missing)?.detach())))
    }

    /// Sets what lies behind each answer to 0, whatever it holds.
    fn only(&self, values: &Tensor) -> Tensor {
        values.masked_fill(&self.mask.eq(0.0), 0.0)
    }

    /// Returns the tokens of each answer, at least 1, `[B]`.
    fn lengths(&self) -> Tensor {
        sum(self.mask).clamp_min(1.0)
    }
}

/// Sums over tokens, `[B]`.
fn sum(values: &Tensor) -> Tensor {
    values.sum_dim_intlist(1i64, false, values.kind())
}

/// Computes −min(ρA, clip(ρ, 1 ± ε)A) and whether the clipped branch is the smaller one.
fn clipped_surrogate(log_ratio: &Tensor, advantages: &Tensor, epsilon: f64) -> (Tensor, Tensor) {
    let advantages = advantages.detach().to_kind(log_ratio.kind());
    let ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
    let (plain, bounded) = (&ratio * &advantages, ratio.clamp(1.0 - epsilon, 1.0 + epsilon) * &advantages);
    let clipped = bounded.detach().lt_tensor(&plain.detach()).to_kind(log_ratio.kind());
    (-plain.minimum(&bounded), clipped)
}

/// Computes the Nash-MD policy gradient, the sum over the tokens of each answer.
///
/// `L = −Σ_n sg[ρ·(P − ½ − β·Σ_{m≥n}(lp_m − refp_m))]·lp_n` (appendix F.2 of <https://arxiv.org/abs/2312.00886>): each token is
/// charged the KL of itself and all that follow. TRL charges it its own alone, which is another, biased gradient.
///
/// `ρ = min(exp(Σ_m lp_m − lp_old_m), 2)` is the importance ratio of the whole answer, 1 for an answer of the current policy: the
/// estimate is that of the current policy whoever sampled, but for what the truncation cuts off (Ionides, "Truncated
/// importance sampling", 2008).
///
/// # Arguments
/// * `preference` - probability that the answer is preferred to its opponent, `[B]`.
/// * `beta` - τ of the paper, above 0; 0.008 there.
///
/// # Errors
/// [`Error::Shape`], [`Error::Kind`], [`Error::Device`], [`Error::Missing`] without a reference or the old log-probs,
/// [`Error::Param`].
pub fn nash_md_loss(inputs: &TokenLogps, preference: &Tensor, beta: f64) -> Result<GradientOutput> {
    positive("nash_md", [("beta", beta)])?;
    inputs.check(preference)?;
    let ratios = inputs.over_reference("nash_md")?.detach();
    let to_go = ratios.flip([1]).cumsum(1, ratios.kind()).flip([1]);
    let advantage = preference.detach().to_kind(ratios.kind()).unsqueeze(1) - 0.5 - beta * to_go;
    let log_ratio = sum(&inputs.over_old("nash_md")?).detach();
    let clipped = log_ratio.gt(MAX_RATIO.ln()).to_kind(ratios.kind());
    let ratio = log_ratio.clamp_max(MAX_RATIO.ln()).exp().unsqueeze(1);
    let per_answer = sum(&inputs.only(&-(ratio * advantage * inputs.policy)));
    Ok(GradientOutput { per_answer, clipped })
}

/// Computes PPO's clipped surrogate, the sum over the tokens of each answer; its mean is over all tokens of the step.
///
/// `L = −Σ_t min(ρ_t·A_t, clip(ρ_t, 1−ε, 1+ε)·A_t)`, `ρ_t = exp(lp_t − lp_old_t)`, the log-ratio held within ±20
/// (<https://arxiv.org/abs/1707.06347>, equation 7).
///
/// # Arguments
/// * `advantages` - `[B, T]`, without gradient.
/// * `epsilon` - above 0; 0.2 in the paper.
///
/// # Errors
/// As [`nash_md_loss`]; [`Error::Missing`] without the old log-probs.
pub fn ppo_loss(inputs: &TokenLogps, advantages: &Tensor, epsilon: f64) -> Result<GradientOutput> {
    positive("ppo", [("epsilon", epsilon)])?;
    inputs.check(&advantages.select(1, 0))?;
    let (loss, clipped) = clipped_surrogate(&inputs.over_old("ppo")?, advantages, epsilon);
    let clipped = sum(&inputs.only(&clipped)) / inputs.lengths();
    Ok(GradientOutput { per_answer: sum(&inputs.only(&loss)), clipped })
}

/// Computes group relative policy optimization, the mean over the tokens of each answer.
///
/// `L = 1/|y|·Σ_t [−min(ρ_t·A, clip(ρ_t)·A) + β·k3_t]`, `k3 = e^{ref−lp} − (ref−lp) − 1` (<https://arxiv.org/abs/2402.03300>,
/// equation 3).
///
/// # Arguments
/// * `advantages` - one an answer, `[B]`: [`crate::grpo_advantages`].
/// * `epsilon` - above 0; 0.2.
/// * `beta` - weight of the KL term, at least 0; 0.04 in the paper, 0 in TRL.
///
/// # Errors
/// As [`ppo_loss`]; [`Error::Missing`] without a reference unless `beta` is 0.
pub fn grpo_loss(inputs: &TokenLogps, advantages: &Tensor, epsilon: f64, beta: f64) -> Result<GradientOutput> {
    positive("grpo", [("epsilon", epsilon)])?;
    not_negative("grpo", [("beta", beta)])?;
    inputs.check(advantages)?;
    let (mut loss, clipped) = clipped_surrogate(&inputs.over_old("grpo")?, &advantages.unsqueeze(1), epsilon);
    if beta > 0.0 {
        let back = -inputs.over_reference("grpo")?.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
        loss += beta * (back.expm1() - back);
    }
    let mean = |values: &Tensor| sum(&inputs.only(values)) / inputs.lengths();
    Ok(GradientOutput { per_answer: mean(&loss), clipped: mean(&clipped) })
}

/// Computes REINFORCE with a leave-one-out baseline, one ratio an answer.
///
/// `L = −min(ρA, clip(ρ)A)`, `ρ = exp(Σ_t lp_t − lp_old_t)`, the log-ratio held within ±20, as in TRL
/// (<https://arxiv.org/abs/2402.14740>).
///
/// # Arguments
/// * `advantages` - one an answer, `[B]`: [`crate::rloo_advantages`].
/// * `epsilon` - above 0; 0.2.
///
/// # Errors
/// As [`ppo_loss`].
pub fn rloo_loss(inputs: &TokenLogps, advantages: &Tensor, epsilon: f64) -> Result<GradientOutput> {
    positive("rloo", [("epsilon", epsilon)])?;
    inputs.check(advantages)?;
    let (per_answer, clipped) = clipped_surrogate(&sum(&inputs.over_old("rloo")?), advantages, epsilon);
    Ok(GradientOutput { per_answer, clipped })
}

/// Computes PPO's clipped value loss, the sum over the tokens of each answer, `[B]`; its mean is over all tokens of the step.
///
/// `L = ½·Σ_t max((V_t − R_t)², (clip(V_t, V_old ± ε) − R_t)²)` (TRL, OpenRLHF).
///
/// # Arguments
/// * `values` - V before each token, `[B, T]`; carries the gradient.
/// * `old`, `returns`, `mask` - `[B, T]`, without gradient; `mask` is 1 for tokens of the answer.
/// * `epsilon` - above 0; 0.2.
///
/// # Errors
/// [`Error::Shape`], [`Error::Kind`], [`Error::Device`] or [`Error::Param`].
pub fn value_loss(values: &Tensor, [old, returns, mask]: [&Tensor; 3], epsilon: f64) -> Result<Tensor> {
    positive("ppo", [("epsilon_value", epsilon)])?;
    let inputs = TokenLogps::new(values, mask).with_old(old).with_reference(returns);
    inputs.check(&mask.select(1, 0))?;
    let (old, returns) = (old.detach(), returns.detach());
    let bounded = values.maximum(&(&old - epsilon)).minimum(&(old + epsilon));
    let worse = (values - &returns).square().maximum(&(bounded - returns).square());
    Ok(0.5 * sum(&inputs.only(&worse)))
}
