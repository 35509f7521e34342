//! Pairwise Cringe: likelihood of the chosen answer, and each rejected token pushed below the tokens that the policy would rather say.
//!
//! Xu et al., "Some things are more Cringe than others", <https://arxiv.org/abs/2312.16682>; the token term is ParlAI's.

use tch::Tensor;

use crate::{
    LossOutput, PairLogps, Result,
    error::{check, not_negative, positive},
};

/// Computes `log(e^{s⋆} + e^{s⁻}) − s⋆` of every rejected token, averaged over s⋆ among the `k` largest logits besides the token's own.
///
/// ParlAI draws one s⋆ from the softmax of those k; this is the expectation of that draw, its probabilities held fixed, and with k = 1 the same.
///
/// # Arguments
/// * `logits` - of each token's place, float32 or float64 `[N, V]`; carry the gradient, through s⋆ as well.
/// * `targets` - ids of the rejected tokens, int64 `[N]`.
/// * `k` - at least 1 and below V.
///
/// # Returns
/// `[N]`, in nats.
pub fn cringe_tokens(logits: &Tensor, targets: &Tensor, k: i64) -> Tensor {
    let targets = targets.unsqueeze(1);
    let negative = logits.gather(1, &targets, false); // [N, 1]
    let others = logits.scatter_value(1, &targets, f64::NEG_INFINITY);
    let (best, _) = others.topk(k, 1, true, true); // [N, k]
    let probability = best.detach().softmax(1, best.kind());
    let cost = -(&best - negative).log_sigmoid();
    (probability * cost).sum_dim_intlist(1i64, false, logits.kind())
}

/// Computes `g·(−log π(y⁺)/|y⁺| + α·c)` with c the mean of [`cringe_tokens`] over y⁻ and the gate `g = σ((b − (πc − πr))/τ)`, held fixed: pairs that
/// the policy already orders by far count little.
///
/// # Arguments
/// * `inputs` - with lengths and the token terms of the rejected answers.
/// * `alpha`, `tau`, `margin`, `k` - α at least 0, τ above 0, b in nats, and k of [`cringe_tokens`]; 0.005, 10, −10 and 5 are said to be the paper's and
///   could not be checked.
///
/// # Returns and errors
/// As [`crate::dpo_loss`], without a reference.
pub fn cringe_loss(inputs: &PairLogps, alpha: f64, tau: f64, margin: f64, k: f64) -> Result<LossOutput> {
    not_negative("cringe", [("alpha", alpha)])?;
    positive("cringe", [("tau", tau)])?;
    check("cringe", [("margin", margin)], "a finite number", |_| true)?;
    check("cringe", [("k", k)], "a whole number of at least 1", |k| k >= 1.0 && k.fract() == 0.0)?;
    let [chosen, rejected] = inputs.policy()?;
    let [mean, _] = inputs.mean_logps("cringe")?;
    let gate = ((margin - (chosen.detach() - rejected.detach())) / tau).sigmoid();
    let terms = inputs.token_terms("cringe")?;
    let per_pair = inputs.weigh(gate * (-mean + alpha * terms.to_kind(chosen.kind())));
    Ok(LossOutput::new(per_pair, &[chosen.shallow_clone(), rejected.shallow_clone()], 1.0))
}
