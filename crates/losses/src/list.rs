//! Losses on the ranked answers of a prompt.

use tch::Tensor;

use crate::{
    Error, Result,
    error::{alike, check, not_negative, positive},
};

/// Summed log-probs of the answers of a batch of prompts, borrowed, in nats.
///
/// Every tensor has shape `[B, K]` and kind float32 or float64; prompts with fewer answers than K are masked.
#[derive(Debug, Clone, Copy)]
pub struct ListLogps<'a> {
    policy: &'a Tensor,
    pub(crate) mask: &'a Tensor,
    labels: &'a Tensor,
    reference: Option<&'a Tensor>,
    tokens: Option<&'a Tensor>,
    from_reference: Option<&'a Tensor>,
}

/// What a list loss returns; the caller reduces over prompts.
#[derive(Debug)]
pub struct ListOutput {
    /// Loss of each prompt, `[B]`; carries the gradient.
    pub per_list: Tensor,
    /// Implicit rewards of all answers, `[B, K]`, detached; 0 where masked.
    pub rewards: Tensor,
}

impl<'a> ListLogps<'a> {
    /// Starts from log π(y|x), which carries the gradient, 1 for answers and 0 for gaps, and what the answers are ranked by:
    /// win rates in [0, 1], or scores for [`pro_loss`].
    pub fn new(policy: &'a Tensor, mask: &'a Tensor, labels: &'a Tensor) -> Self {
        Self { policy, mask, labels, reference: None, tokens: None, from_reference: None }
    }

    /// Adds log π_ref(y|x), without gradient.
    pub fn with_reference(self, reference: &'a Tensor) -> Self {
        Self { reference: Some(reference), ..self }
    }

    /// Adds the lengths in completion tokens.
    pub fn with_tokens(self, tokens: &'a Tensor) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// Adds 1 where the reference gave the answer, else 0.
    pub fn with_from_reference(self, mask: &'a Tensor) -> Self {
        Self { from_reference: Some(mask), ..self }
    }

    fn check(&self) -> Result<()> {
        let expected = self.policy.size();
        if expected.len() != 2 {
            return Err(Error::Shape { name: "policy", expected: vec![-1, -1], found: expected });
        }
        alike([
            ("policy", Some(self.policy)),
            ("mask", Some(self.mask)),
            ("labels", Some(self.labels)),
            ("reference", self.reference),
            ("tokens", self.tokens),
            ("from_reference", self.from_reference),
        ])
    }

    /// Returns log π − log π_ref, 0 in gaps.
    fn log_ratios(&self, loss: &'static str) -> Result<Tensor> {
        self.check()?;
        let missing = Error::Missing { loss, input: "reference log-probabilities", setter: "with_reference" };
        let reference = self.reference.ok_or(missing)?.detach();
        Ok(self.only(&(self.policy - reference)))
    }

    /// Sets gaps to 0, whatever they hold.
    fn only(&self, values: &Tensor) -> Tensor {
        values.masked_fill(&self.mask.eq(0.0), 0.0)
    }

    /// Returns the labels without gradient, in the kind of the log-probs.
    fn labels(&self) -> Tensor {
        self.labels.detach().to_kind(self.policy.kind())
    }

    /// Returns where each rank's answer is, the strongest first and gaps last, `[B, K]`.
    fn order(&self) -> Tensor {
        self.labels().masked_fill(&self.mask.eq(0.0), f64::NEG_INFINITY).argsort_stable(true, 1, true)
    }

    /// Returns 1 for the `count` best (or, `from_worst`, the worst) answers of each prompt and 0 for the others, `[B, K]`.
    fn ranked(&self, count: &Tensor, from_worst: bool) -> Tensor {
        let place = self.order().argsort(1, false).to_kind(self.policy.kind());
        let place = if from_worst { self.counts().unsqueeze(1) - 1.0 - place } else { place };
        let there = place.lt_tensor(&count.unsqueeze(1)).logical_and(&self.mask.gt(0.0));
        there.to_kind(self.policy.kind())
    }

    /// Returns the answers of each prompt, at least 1, `[B]`.
    fn counts(&self) -> Tensor {
        sum(self.mask).clamp_min(1.0)
    }
}

fn sum(values: &Tensor) -> Tensor {
    values.sum_dim_intlist(1i64, false, values.kind())
}

/// Computes full-K SPPO: `L = 1/K·Σ_k (h_k − (P̂_k − ½)/β)²`, the paper's equation on all of its K samples
/// (<https://arxiv.org/abs/2405.00675>).
///
/// # Arguments
/// * `inputs` - labels are the win rates P̂ over the K answers, each against itself counted as ½.
/// * `beta` - 1/η, above 0; 1e-3 in the paper.
///
/// # Errors
/// [`Error::Shape`], [`Error::Kind`], [`Error::Device`], [`Error::Missing`] without a reference, [`Error::Param`].
pub fn sppo_list_loss(inputs: &ListLogps, beta: f64) -> Result<ListOutput> {
    positive("sppo_list", [("beta", beta)])?;
    let h = inputs.log_ratios("sppo_list")?;
    let residual = inputs.only(&(&h - (inputs.labels() - 0.5) / beta));
    Ok(ListOutput { per_list: sum(&residual.square()) / inputs.counts(), rewards: beta * h.detach() })
}

/// Computes the Plackett-Luce likelihood of the ranking, list-MLE: `L = Σ_k [logsumexp_{j≥k} s_j − s_k]`, `s = β·h`
/// (<https://arxiv.org/abs/2305.18290>, appendix A.3).
///
/// # Arguments, returns and errors
/// As [`sppo_list_loss`]; labels rank the answers, equal ones by place. `beta` 0.05 in LiPO's comparison.
pub fn list_mle_loss(inputs: &ListLogps, beta: f64) -> Result<ListOutput> {
    positive("list_mle", [("beta", beta)])?;
    let scores = beta * inputs.log_ratios("list_mle")?;
    let gaps = inputs.mask.eq(0.0);
    let (order, lowest) = (inputs.order(), -1e30);
    let ranked = scores.masked_fill(&gaps, lowest).gather(1, &order, false);
    let rest = ranked.flip([1]).logcumsumexp(1).flip([1]);
    let terms = (rest - &ranked).masked_fill(&gaps.gather(1, &order, false), 0.0);
    Ok(ListOutput { per_list: sum(&terms), rewards: scores.detach() })
}

/// Computes LiPO-λ: `L = Σ_{ψ_i>ψ_j} Δ_ij·log(1 + e^{−(s_i−s_j)})`, `Δ_ij = |2^ψ_i − 2^ψ_j|·|1/ln(1+τ_i) − 1/ln(1+τ_j)|`, `s = β·h` and τ
/// the rank of s under the current policy, detached (<https://arxiv.org/abs/2402.01878>).
///
/// # Arguments, returns and errors
/// As [`sppo_list_loss`]; labels are ψ in [0, 1]. `beta` 0.05 in the paper.
pub fn lipo_loss(inputs: &ListLogps, beta: f64) -> Result<ListOutput> {
    positive("lipo", [("beta", beta)])?;
    let scores = beta * inputs.log_ratios("lipo")?;
    let gaps = inputs.mask.eq(0.0);
    let fixed = scores.detach().masked_fill(&gaps, f64::NEG_INFINITY);
    let place = fixed.argsort_stable(true, 1, true).argsort(1, false).to_kind(scores.kind());
    let discount = (place + 2.0).log().reciprocal();
    let between = |values: &Tensor| values.unsqueeze(2) - values.unsqueeze(1); // [B, K, K]
    let labels = inputs.labels();
    let wins = between(&labels).gt(0.0).logical_and(&gaps.unsqueeze(2).logical_or(&gaps.unsqueeze(1)).logical_not());
    let gain = (labels * std::f64::consts::LN_2).exp();
    let weight = between(&gain).abs() * between(&discount).abs();
    let terms = (-between(&scores).log_sigmoid() * weight).masked_fill(&wins.logical_not(), 0.0);
    Ok(ListOutput {
        per_list: terms.sum_dim_intlist([1i64, 2].as_slice(), false, terms.kind()),
        rewards: scores.detach(),
    })
}

/// Computes preference ranking optimization, PRO: ranked by reward `r_1 ≥ … ≥ r_K`, `S = log π/|y|`,
/// `L = Σ_{k<K} [logsumexp(T_k·S_k, (r_k−r_j)·S_j for j>k) − T_k·S_k] + λ·(K−1)²·(−log π_1)`, `T_k = max_{j>k}(r_k − r_j)`, in the authors' code's
/// form (<https://arxiv.org/abs/2306.17492>).
///
/// # Arguments, returns and errors
/// As [`sppo_list_loss`] without a reference but with lengths; labels are rewards. `lambda` at least 0, 0.05 in the code.
pub fn pro_loss(inputs: &ListLogps, lambda: f64) -> Result<ListOutput> {
    not_negative("pro", [("lambda", lambda)])?;
    inputs.check()?;
    let missing = Error::Missing { loss: "pro", input: "lengths in tokens", setter: "with_tokens" };
    let tokens = inputs.tokens.ok_or(missing)?.to_kind(inputs.policy.kind()).clamp_min(1.0);
    let (order, k) = (inputs.order(), inputs.policy.size()[1]);
    let ranked = |values: &Tensor| values.gather(1, &order, false);
    let means = ranked(&inputs.only(&(inputs.policy / tokens)));
    let (rewards, gaps) = (ranked(&inputs.only(&inputs.labels())), ranked(inputs.mask).eq(0.0));
    let mut total = -lambda * (inputs.counts() - 1.0).square() * ranked(&inputs.only(inputs.policy)).select(1, 0);
    for first in 0..k - 1 {
        let rest = |values: &Tensor| values.narrow(1, first + 1, k - first - 1);
        let gone = rest(&gaps);
        let sharpness = (rewards.narrow(1, first, 1) - rest(&rewards)).masked_fill(&gone, 0.0);
        let own = (sharpness.amax([1i64].as_slice(), true) * means.narrow(1, first, 1)).squeeze_dim(1);
        let others = (sharpness * rest(&means)).masked_fill(&gone, f64::NEG_INFINITY);
        let all = Tensor::cat(&[own.unsqueeze(1), others], 1).logsumexp([1i64].as_slice(), false);
        total += (all - own).masked_fill(&gone.select(1, 0), 0.0);
    }
    Ok(ListOutput { per_list: total, rewards: inputs.only(&inputs.policy.detach()) })
}

/// Computes distributional dispreference optimization, D2O: the worst answer is pushed below the average of the policy's others,
/// `L = −log σ(β/(K−1)·Σ_i h_i − α·h_worst)` (Duan et al., <https://arxiv.org/abs/2403.03419>).
///
/// # Arguments, returns and errors
/// As [`sppo_list_loss`]; labels rank the answers. `beta` above 0 and `alpha` at least 0, 0.1 each in the paper with 11 others.
pub fn d2o_loss(inputs: &ListLogps, beta: f64, alpha: f64) -> Result<ListOutput> {
    positive("d2o", [("beta", beta)])?;
    not_negative("d2o", [("alpha", alpha)])?;
    let h = inputs.log_ratios("d2o")?;
    let others = (inputs.counts() - 1.0).clamp_min(1.0);
    let worst = inputs.ranked(&others.ones_like(), true);
    let mean = sum(&(inputs.only(&(1.0 - &worst)) * &h)) / others;
    Ok(ListOutput { per_list: -(beta * mean - alpha * sum(&(worst * &h))).log_sigmoid(), rewards: beta * h.detach() })
}

/// Computes preference optimization as probabilistic inference, PMPO: `L = −α·mean_{D⁺} log π + (1−α)·mean_{D⁻} log π + β·KL(π_ref‖π)`, D⁺ and D⁻
/// the better and the worse half of a prompt's answers (Abdolmaleki et al., <https://arxiv.org/abs/2410.04166>).
///
/// The divergence is the mean of `log π_ref − log π` over the answers that the reference gave, whose expectation and gradient are the
/// divergence's; the paper sums it over the vocabulary on such answers.
///
/// # Arguments, returns and errors
/// As [`sppo_list_loss`], and [`Error::Missing`] without who answered; `alpha` in [0, 1], 0.5 in the paper; `beta` at least 0, 0.5 there: with
/// α < 1 and too little of it the loss has no lower bound.
pub fn pmpo_loss(inputs: &ListLogps, alpha: f64, beta: f64) -> Result<ListOutput> {
    not_negative("pmpo", [("beta", beta)])?;
    check("pmpo", [("alpha", alpha)], "in [0, 1]", |a| (0.0..=1.0).contains(&a))?;
    let h = inputs.log_ratios("pmpo")?;
    let missing = Error::Missing { loss: "pmpo", input: "who answered", setter: "with_from_reference" };
    let given = inputs.only(inputs.from_reference.ok_or(missing)?);
    let (policy, half) = (inputs.only(inputs.policy), (inputs.counts() / 2.0).floor());
    let mean = |mask: Tensor| sum(&(mask * &policy)) / half.clamp_min(1.0);
    let divergence = -sum(&(&given * &h)) / sum(&given).clamp_min(1.0);
    let pull = (1.0 - alpha) * mean(inputs.ranked(&half, true)) - alpha * mean(inputs.ranked(&half, false));
    Ok(ListOutput { per_list: pull + beta * divergence, rewards: h.detach() })
}

/// Computes rejection-sampling fine-tuning: `L = −1/n·Σ log π(y)/|y|` over the `n` best answers (RAFT, Dong et al.,
/// <https://arxiv.org/abs/2304.06767>, with n = 1).
///
/// # Arguments, returns and errors
/// As [`sppo_list_loss`] without a reference but with lengths; `n` at least 1, prompts with fewer answers imitate all.
pub fn raft_loss(inputs: &ListLogps, n: f64) -> Result<ListOutput> {
    check("raft", [("n", n)], "a whole number of at least 1", |n| n >= 1.0 && n.fract() == 0.0)?;
    inputs.check()?;
    let missing = Error::Missing { loss: "raft", input: "lengths in tokens", setter: "with_tokens" };
    let tokens = inputs.tokens.ok_or(missing)?.to_kind(inputs.policy.kind()).clamp_min(1.0);
    let means = inputs.only(&(inputs.policy / tokens));
    let count = inputs.counts().clamp_max(n);
    Ok(ListOutput { per_list: -sum(&(inputs.ranked(&count, false) * &means)) / count, rewards: means.detach() })
}
