//! Optimal transport, divergences and gaps: no golden values, so a second implementation in plain numbers and central differences.

use tch::{Kind, Tensor};

use super::{assert_close, floats};
use crate::{Error, PairLogps, PairLoss, aot_loss, aot_unpaired_loss, dove_loss};

const POLICY: [[f64; 4]; 2] = [[-12.3, -40.1, -7.7, -30.0], [-15.9, -33.4, -7.1, -55.5]];
const REFERENCE: [[f64; 4]; 2] = [[-13.0, -38.0, -9.2, -44.0], [-14.1, -36.3, -6.4, -47.0]];
const BETA: f64 = 0.3;
const SMOOTHING: f64 = 0.1;

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn logistic(d: f64) -> f64 {
    let cost = |z: f64| (-z).exp().ln_1p();
    (1.0 - SMOOTHING) * cost(BETA * d) + SMOOTHING * cost(-BETA * d)
}

/// The loss of the whole step in plain numbers.
fn plain(policy: [[f64; 4]; 2], unpaired: bool) -> f64 {
    let [upper, lower] = if unpaired {
        [0, 1].map(|side: usize| sorted((0..4).map(|i| policy[side][i] - REFERENCE[side][i])))
    } else {
        [policy, REFERENCE].map(|sums| sorted((0..4).map(|i| sums[0][i] - sums[1][i])))
    };
    upper.iter().zip(&lower).map(|(a, b)| logistic(a - b)).sum()
}

/// What stands at the rank of each of `a` in `b`.
fn at_ranks(a: &[f64], b: &[f64]) -> Tensor {
    let order = sorted(b.iter().copied());
    let rank = |value: &f64| a.iter().filter(|other| *other < value).count();
    Tensor::from_slice(&a.iter().map(|value| order[rank(value)]).collect::<Vec<_>>())
}

#[test]
fn transport_compares_distributions() {
    for unpaired in [false, true] {
        let [chosen, rejected] = POLICY.map(|values| Tensor::from_slice(&values).set_requires_grad(true));
        let [ref_chosen, ref_rejected] = REFERENCE.map(|values| Tensor::from_slice(&values));
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>();
        let (upper, lower) = if unpaired {
            (difference(&POLICY[0], &REFERENCE[0]), difference(&POLICY[1], &REFERENCE[1]))
        } else {
            (difference(&POLICY[0], &POLICY[1]), difference(&REFERENCE[0], &REFERENCE[1]))
        };
        let (of_upper, of_lower) = (at_ranks(&upper, &lower), at_ranks(&lower, &upper));
        let inputs = PairLogps::new(&chosen, &rejected)
            .with_reference(&ref_chosen, &ref_rejected)
            .with_matched(&of_upper, &of_lower);
        let loss = if unpaired { aot_unpaired_loss } else { aot_loss };
        let value = loss(&inputs, BETA, SMOOTHING).expect("valid").per_pair.sum(Kind::Double);
        assert_close("value", value.double_value(&[]), plain(POLICY, unpaired), 1e-12, 0.0);
        value.backward();
        for (side, sums) in [&chosen, &rejected].into_iter().enumerate() {
            for (i, exact) in floats(&sums.grad()).into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut policy = POLICY;
                    policy[side][i] += by;
                    plain(policy, unpaired)
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert_close(&format!("unpaired {unpaired}, side {side}, pair {i}"), exact, numeric, 1e-6, 1e-9);
            }
        }
    }
    let x = Tensor::from_slice(&[0.0f64]);
    let error = aot_loss(&PairLogps::new(&x, &x).with_reference(&x, &x), 0.1, 0.0).expect_err("refused");
    assert!(matches!(error, Error::Missing { setter: "with_matched", .. }));
}

/// Computes a loss of one pair with h⁺ = 2.5, h⁻ = −1.25, scores 1.7 and −0.4, and tails of 1 and 0.25.
fn one(loss: PairLoss) -> f64 {
    let scalar = |value: f64| Tensor::from_slice(&[value]);
    let [chosen, rejected, ref_chosen, ref_rejected] = [-42.5, -51.25, -45.0, -50.0].map(scalar);
    let (better, worse) = (scalar(1.7), scalar(-0.4));
    let [chosen_tail, rejected_tail, nothing] = [1.0, 0.25, 0.0].map(scalar);
    let inputs = PairLogps::new(&chosen, &rejected)
        .with_reference(&ref_chosen, &ref_rejected)
        .with_scores(&better, &worse)
        .with_tails([&chosen_tail, &rejected_tail], [&nothing, &nothing]);
    loss.compute(&inputs).expect("valid").per_pair.double_value(&[0])
}

#[test]
fn divergences_gaps_and_lengths_have_the_values_of_their_formulas() {
    let cost = |z: f64| (-z).exp().ln_1p();
    let js = |h: f64| (2.0 * h.exp() / (1.0 + h.exp())).ln();
    assert_close("js", one(PairLoss::DpoJs { beta: 0.3 }), cost(0.3 * (js(2.5) - js(-1.25))), 1e-12, 0.0);
    // α = 1 is the forward KL, f'(t) = 1 − 1/t; α = 0.5 has f'(t) = (1 − t^{−½})/½; α → 0 is DPO.
    let forward = 0.3 * (1.25f64.exp() - (-2.5f64).exp());
    assert_close("forward", one(PairLoss::DpoAlpha { beta: 0.3, alpha: 1.0 }), cost(forward), 1e-12, 0.0);
    let half = 0.3 * 2.0 * (0.625f64.exp() - (-1.25f64).exp());
    assert_close("alpha", one(PairLoss::DpoAlpha { beta: 0.3, alpha: 0.5 }), cost(half), 1e-12, 0.0);
    let dpo = PairLoss::Dpo { beta: 0.3, label_smoothing: 0.0 };
    assert_close("limit", one(PairLoss::DpoAlpha { beta: 0.3, alpha: 1e-9 }), one(dpo), 1e-8, 0.0);
    assert_close("all tokens", one(PairLoss::LdDpo { beta: 0.3, alpha: 1.0 }), one(dpo), 1e-12, 0.0);
    let shared = 0.3 * ((2.5 - 0.75 * 1.0) - (-1.25 - 0.75 * 0.25));
    assert_close("lengths", one(PairLoss::LdDpo { beta: 0.3, alpha: 0.25 }), cost(shared), 1e-12, 0.0);
    let gap = one(PairLoss::RewardGap { beta: 0.3, eta: 0.5 });
    assert_close("gap", gap, (0.3 * 3.75 - 0.5 * 2.1f64).powi(2), 1e-12, 0.0);
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let (p, q): (f64, f64) = (sigmoid(0.5 * 2.1), sigmoid(0.3 * 3.75));
    let divergence = p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
    assert_close("divergence", one(PairLoss::RewardGapKl { beta: 0.3, eta: 0.5 }), divergence, 1e-9, 0.0);
    assert_close("met", one(PairLoss::RewardGapKl { beta: 0.3, eta: 0.3 * 3.75 / 2.1 }), 0.0, 0.0, 1e-15);
}

#[test]
fn answers_to_different_prompts_meet() {
    // Each chosen answer meets the next pair's rejected one; the judge prefers it, the other, neither, it.
    let signs = [1.0, -1.0, 0.0, 1.0];
    let plain = |policy: [[f64; 4]; 2]| -> f64 {
        let h = |i: usize, side: usize| policy[side][i] - REFERENCE[side][i];
        let cost = |i: usize| signs[i] * signs[i] * (-BETA * signs[i] * (h(i, 0) - h((i + 1) % 4, 1))).exp().ln_1p();
        (0..4).map(cost).sum()
    };
    let [chosen, rejected] = POLICY.map(|values| Tensor::from_slice(&values).set_requires_grad(true));
    let [ref_chosen, ref_rejected] = REFERENCE.map(|values| Tensor::from_slice(&values));
    let h = |i: usize, side: usize| POLICY[side][i] - REFERENCE[side][i];
    let vector = |value: &dyn Fn(usize) -> f64| Tensor::from_slice(&(0..4).map(value).collect::<Vec<_>>());
    let (below, above) = (vector(&|i| h((i + 1) % 4, 1)), vector(&|i| h((i + 3) % 4, 0)));
    let (own, other) = (vector(&|i| signs[i]), vector(&|i| signs[(i + 3) % 4]));
    let inputs = PairLogps::new(&chosen, &rejected)
        .with_reference(&ref_chosen, &ref_rejected)
        .with_matched(&below, &above)
        .with_signs(&own, &other);
    let value = dove_loss(&inputs, BETA).expect("valid").per_pair.sum(Kind::Double);
    assert_close("value", value.double_value(&[]), plain(POLICY), 1e-12, 0.0);
    value.backward();
    for (side, sums) in [&chosen, &rejected].into_iter().enumerate() {
        for (i, exact) in floats(&sums.grad()).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut policy = POLICY;
                policy[side][i] += by;
                plain(policy)
            };
            assert_close("gradient", exact, (moved(1e-5) - moved(-1e-5)) / 2e-5, 1e-6, 1e-9);
        }
    }
    let error = dove_loss(&inputs.with_matched(&below, &above), 0.0).expect_err("refused");
    assert!(matches!(error, Error::Param { name: "beta", .. }));
}
