//! What tells how a preference loss moves a policy, beside its value.

use tch::Tensor;

/// How sure a policy is of its next token, one number a position.
#[derive(Debug)]
pub struct TopK {
    /// Probability of the `k` most probable tokens together, `[N]`.
    pub mass: Tensor,
    /// Entropy of them in bits, their probabilities scaled to add up to 1, `[N]`.
    pub entropy: Tensor,
    /// Σ −p·log₂ p of them as they are, in bits, `[N]`.
    pub raw_entropy: Tensor,
}

/// Computes mass and entropy of the `k` most probable tokens: both turn down where a policy is over-optimised (Shi et al.,
/// <https://arxiv.org/abs/2410.11677>, which takes k = 10).
///
/// # Arguments
/// * `top` - log-probs of the `k` most probable tokens in nats at temperature 1, `[N, k]`, float32 or float64; nothing flows back.
pub fn top_k(top: &Tensor) -> TopK {
    let top = top.detach();
    let p = top.exp();
    let sum = |values: &Tensor| values.sum_dim_intlist(1i64, false, values.kind());
    let bits = std::f64::consts::LN_2.recip();
    let mass = sum(&p);
    let raw_entropy = -sum(&(&p * top)) * bits;
    // H(p/m) = H(p)/m + log₂ m.
    let entropy = &raw_entropy / &mass + mass.log() * bits;
    TopK { mass, entropy, raw_entropy }
}

/// Computes how a small step of a margin loss moves log π of the chosen and of the rejected answer, per unit of the step and of the loss's
/// slope: `(‖g⁺‖² − ⟨g⁺, g⁻⟩, ⟨g⁺, g⁻⟩ − ‖g⁻‖²)` (gradient entanglement, Yuan et al., <https://arxiv.org/abs/2410.13828>).
///
/// The chosen answer gains only where the first is above 0, the rejected one loses only where the second is below 0.
///
/// # Arguments
/// * `squares` - ‖g⁺‖² and ‖g⁻‖², g the gradient of log π of the answer.
/// * `product` - ⟨g⁺, g⁻⟩.
pub fn entanglement(squares: [f64; 2], product: f64) -> [f64; 2] {
    [squares[0] - product, product - squares[1]]
}

/// Computes by how much the policy that DPO aims at prefers the chosen answer, in nats: `logit(α)/β + log π_ref(y⁺|x) − log π_ref(y⁻|x)`
/// (Chen et al., <https://arxiv.org/abs/2405.19534>). Below 0 even a perfectly trained policy ranks the pair wrongly.
///
/// # Arguments
/// * `alpha` - share of annotators that prefer the chosen answer, in (0, 1).
/// * `beta` - above 0.
/// * `reference_gap` - log π_ref(y⁺|x) − log π_ref(y⁻|x), in nats.
pub fn idealised_margin(alpha: f64, beta: f64, reference_gap: f64) -> f64 {
    (alpha / (1.0 - alpha)).ln() / beta + reference_gap
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PairLogps, PairLoss};

    #[test]
    fn the_golden_distribution_has_its_mass_and_entropies() {
        let p = [0.4, 0.25, 0.12, 0.08, 0.05, 0.03, 0.02, 0.015, 0.01, 0.008, 0.007, 0.005, 0.005];
        let logprobs = Tensor::from_slice(&p).log().unsqueeze(0);
        let found = top_k(&logprobs.narrow(1, 0, 10));
        let close = |tensor: &Tensor, expected: f64| {
            let value = tensor.double_value(&[0]);
            assert!((value - expected).abs() < 1e-12, "{value}, expected {expected}");
        };
        close(&found.mass, 0.983);
        close(&found.entropy, 2.397_578_231_694_432_7);
        close(&found.raw_entropy, 2.381_135_556_545_668);
        // All of a distribution has no mass left, and one entropy.
        let all = top_k(&logprobs);
        close(&all.mass, 1.0);
        close(&(all.entropy - all.raw_entropy), 0.0);
    }

    #[test]
    fn the_golden_gradients_push_both_answers_up_and_down() {
        let (chosen, rejected) = ([1.0, 0.5, 0.0], [0.9, 0.6, 0.3]);
        let dot = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let [up, down] = entanglement([dot(chosen, chosen), dot(rejected, rejected)], dot(chosen, rejected));
        assert!((up - 0.05).abs() < 1e-12 && (down + 0.06).abs() < 1e-12, "{up} {down}");
    }

    #[test]
    fn the_golden_pairs_are_ranked_and_dpo_says_when() {
        let (alpha, gaps) = ([0.75, 0.75, 0.6, 0.9], [-3.0, 0.5, -0.2, -30.0]);
        let post = [7.986_122_886_681_096, 11.486_122_886_681_096, 3.854_651_081_081_641_5, -8.027_754_226_637_807];
        let needed =
            [0.554_355_244_468_527_1, 0.718_459_648_013_286_3, 0.683_197_179_726_634_2, 0.048_587_351_573_742_06];
        for i in 0..4 {
            assert!((idealised_margin(alpha[i], 0.1, gaps[i]) - post[i]).abs() < 1e-12);
            // A policy that ranks the two alike: hc − hr = −gap. Only with a smaller DPO loss is the pair ranked rightly.
            let [policy, chosen, rejected] = [-20.0, -20.0 + gaps[i], -20.0].map(|value| Tensor::from_slice(&[value]));
            let inputs = PairLogps::new(&policy, &policy).with_reference(&chosen, &rejected);
            let loss = PairLoss::Dpo { beta: 0.1, label_smoothing: 0.0 }.compute(&inputs).expect("valid inputs");
            assert!((loss.per_pair.double_value(&[0]) - needed[i]).abs() < 1e-12);
        }
        let share = |values: &[f64]| values.iter().filter(|value| **value > 0.0).count() as f64 / 4.0;
        assert_eq!(share(&post), 0.75, "idealised accuracy");
        assert_eq!(share(&gaps), 0.25, "the reference's accuracy");
    }
}
