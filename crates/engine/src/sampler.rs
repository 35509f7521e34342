//! Draws tokens from logits: temperature, top-k, top-p, then inverse CDF on a given uniform.

use tch::{Kind, Tensor};

/// How answers are drawn and when they end.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Softmax temperature; 0 takes the most probable token.
    pub temperature: f64,
    /// Smallest mass of most probable tokens that is kept, in (0, 1]; 1 keeps all.
    pub top_p: f64,
    /// Number of most probable tokens that are kept; 0 keeps all.
    pub top_k: i64,
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
    /// Ids that end an answer.
    pub eos_ids: Vec<u32>,
}

/// The largest uniform whose product with a total stays below the total in float32.
const BELOW_ONE: f64 = 1.0 - 1.2e-7;

/// Draws one token a row.
///
/// # Arguments
/// * `logits` - `[B, V]`, float32.
/// * `uniforms` - B numbers in [0, 1), one a row.
///
/// # Returns
/// Token ids `[B]` (int64), and their log-probs in nats `[B]` (float32) under the plain softmax of `logits`: at temperature 1
/// and without filters, whatever they were drawn with.
pub fn draw(logits: &Tensor, uniforms: &[f64], params: &SamplingParams) -> (Tensor, Tensor) {
    if let Some(drawn) = draw_fused(logits, uniforms, params) {
        return drawn;
    }
    let shifted = logits - logits.amax([1i64].as_slice(), true);
    let weights = shifted.exp();
    let normaliser = weights.sum_dim_intlist(1i64, false, Kind::Float).log(); // [B]
    let ids = if params.temperature == 0.0 {
        logits.argmax(1, false)
    } else {
        let weights = if params.temperature == 1.0 { weights } else { (&shifted / params.temperature).exp() };
        invert(&filter(weights, params), uniforms)
    };
    let picked = shifted.gather(1, &ids.unsqueeze(1), false).squeeze_dim(1);
    let logprobs = picked - normaliser;
    (ids, logprobs)
}

/// Draws in two passes over the logits where nothing is filtered and they lie on the CPU.
fn draw_fused(logits: &Tensor, uniforms: &[f64], params: &SamplingParams) -> Option<(Tensor, Tensor)> {
    let filtered = params.top_p < 1.0 || (params.top_k > 0 && params.top_k < logits.size()[1]);
    if filtered || params.temperature == 0.0 || logits.device() != tch::Device::Cpu {
        return None;
    }
    // What the loops do not take, the formulas do, which panic where libtorch refuses too.
    let (ids, logprobs) = joust_torch::draw(logits, uniforms, params.temperature).ok()?;
    Some((Tensor::from_slice(&ids), Tensor::from_slice(&logprobs)))
}

/// Sets the weights of tokens outside top-k and top-p to 0.
fn filter(weights: Tensor, params: &SamplingParams) -> Tensor {
    let vocab = weights.size()[1];
    let by_k = params.top_k > 0 && params.top_k < vocab;
    if !by_k && params.top_p >= 1.0 {
        return weights;
    }
    let (sorted, order) = weights.sort(1, true);
    let mut sorted = sorted;
    if by_k {
        // In place: what comes back is another handle on the same memory, and libtorch's errors panic.
        let _ = sorted.narrow(1, params.top_k, vocab - params.top_k).zero_();
    }
    if params.top_p < 1.0 {
        let before = sorted.cumsum(1, Kind::Float) - &sorted; // mass ahead of each token
        let total = sorted.sum_dim_intlist(1i64, true, Kind::Float);
        sorted = sorted.masked_fill(&before.ge_tensor(&(total * params.top_p)), 0.0);
    }
    sorted.zeros_like().scatter(1, &order, &sorted)
}

/// Inverse CDF over unnormalised weights `[B, V]`: the first token whose cumulated weight exceeds u times the total.
fn invert(weights: &Tensor, uniforms: &[f64]) -> Tensor {
    let cdf = weights.cumsum(1, Kind::Float);
    let vocab = cdf.size()[1];
    let uniforms: Vec<f32> = uniforms.iter().map(|u| u.min(BELOW_ONE) as f32).collect();
    let uniforms = Tensor::from_slice(&uniforms).to_device(cdf.device()).unsqueeze(1);
    let target = cdf.narrow(1, vocab - 1, 1) * uniforms; // [B, 1]
    target.searchsorted(&cdf, false, true, "right", None::<Tensor>).squeeze_dim(1).clamp_max(vocab - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> SamplingParams {
        SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 1, eos_ids: vec![] }
    }

    fn ids(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor).unwrap()
    }

    /// Probabilities 0.5, 0.2, 0.3 as logits.
    fn logits(rows: usize) -> Tensor {
        Tensor::from_slice(&[0.5f32.ln(), 0.2f32.ln(), 0.3f32.ln()]).repeat([rows as i64, 1])
    }

    #[test]
    fn a_uniform_picks_the_token_that_its_mass_covers() {
        let (tokens, logprobs) = draw(&logits(5), &[0.0, 0.49, 0.51, 0.71, 0.999_999_99], &params());
        assert_eq!(ids(&tokens), [0, 0, 1, 2, 2]);
        let logprobs = Vec::<f32>::try_from(&logprobs).unwrap();
        assert!((logprobs[2] - 0.2f32.ln()).abs() < 1e-6, "{logprobs:?}");
    }

    #[test]
    fn shares_follow_the_tempered_softmax() {
        let n = 4000;
        let uniforms: Vec<f64> = (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect();
        let (tokens, logprobs) = draw(&logits(n), &uniforms, &SamplingParams { temperature: 0.5, ..params() });
        let share = ids(&tokens).iter().filter(|id| **id == 1).count() as f64 / n as f64;
        assert!((share - 0.04 / (0.25 + 0.04 + 0.09)).abs() < 1e-3, "{share}");
        // The log-prob is that of temperature 1.
        assert!((logprobs.double_value(&[0]) - 0.5f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn filters_keep_the_most_probable() {
        let uniforms = [0.99, 0.6, 0.1];
        let (tokens, _) = draw(&logits(3), &uniforms, &SamplingParams { top_k: 2, ..params() });
        assert_eq!(ids(&tokens), [2, 0, 0], "kept 0.5 and 0.3");
        let (tokens, _) = draw(&logits(3), &uniforms, &SamplingParams { top_p: 0.5, ..params() });
        assert_eq!(ids(&tokens), [0, 0, 0], "0.5 alone reaches top_p");
        let (tokens, _) = draw(&logits(3), &uniforms, &SamplingParams { top_p: 0.51, ..params() });
        assert_eq!(ids(&tokens), [2, 0, 0]);
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let (tokens, _) = draw(&logits(1), &[0.99], &SamplingParams { temperature: 0.0, ..params() });
        assert_eq!(ids(&tokens), [0]);
    }
}
