//! Exact optima, fixed points, estimators and identities, all through the real losses with exact expectations.
//!
//! The numbers are the project's closed-form checks, computed in float64 by other code.

use tch::{Kind, Tensor};

use super::{Batch, assert_close, compute, floats};
use crate::{ListLogps, PairLogps, PairLoss, TokenLogps, grpo_loss, nash_md_loss, sppo_list_loss};

/// A table of logits whose softmax is `policy`; its log-probs carry the gradient.
fn table(policy: &[f64]) -> Tensor {
    Tensor::from_slice(&policy.iter().map(|p| p.ln()).collect::<Vec<_>>()).set_requires_grad(true)
}

fn constants(values: Vec<f64>) -> Tensor {
    Tensor::from_slice(&values)
}

/// Gradient by logit of a pair loss with soft labels, over every pair (i, j) with the given weights.
fn pair_gradient(loss: PairLoss, policy: &[f64], reference: &[f64], pairs: &[(usize, usize, f64, f64)]) -> Vec<f64> {
    let logits = table(policy);
    let logprobs = logits.log_softmax(0, Kind::Double);
    let of = |values: &Tensor, side: fn(&(usize, usize, f64, f64)) -> usize| {
        values.index_select(0, &Tensor::from_slice(&pairs.iter().map(|pair| side(pair) as i64).collect::<Vec<_>>()))
    };
    let fixed = constants(reference.iter().map(|q| q.ln()).collect());
    let p = constants(pairs.iter().map(|pair| pair.2).collect());
    let weight = constants(pairs.iter().map(|pair| pair.3).collect());
    let (chosen, rejected) = (of(&logprobs, |pair| pair.0), of(&logprobs, |pair| pair.1));
    let (ref_chosen, ref_rejected) = (of(&fixed, |pair| pair.0), of(&fixed, |pair| pair.1));
    let inputs =
        PairLogps::new(&chosen, &rejected).with_reference(&ref_chosen, &ref_rejected).with_p(&p).with_weight(&weight);
    loss.compute(&inputs).expect("valid inputs").per_pair.sum(Kind::Double).backward();
    floats(&logits.grad())
}

/// Every ordered pair with P(i preferred to j) and the weight `draw_i · draw_j`.
fn every_pair(draw: &[f64], preference: impl Fn(usize, usize) -> f64) -> Vec<(usize, usize, f64, f64)> {
    let n = draw.len();
    (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| (i, j, preference(i, j), draw[i] * draw[j])).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().map(|value| value.abs()).fold(0.0, f64::max)
}

const NOISY_CYCLE: [[f64; 3]; 3] = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]];
const MU: [f64; 3] = [0.6, 0.3, 0.1];

#[test]
fn dpo_stops_at_the_rewarded_reference_whatever_the_pairs() {
    let (reference, rewards) = ([0.5, 0.3, 0.2], [1.0f64, 0.0, 2.0]);
    let optimum = [0.247_719_518_297_291_97, 0.020_115_114_703_200_765, 0.732_165_366_999_507_2];
    let loss = PairLoss::Dpo { beta: 0.5, label_smoothing: 0.0 };
    let bradley_terry = |i: usize, j: usize| 1.0 / (1.0 + (rewards[j] - rewards[i]).exp());
    for draw in [[0.2, 0.5, 0.3], [0.8, 0.1, 0.1]] {
        let pairs = every_pair(&draw, bradley_terry);
        assert!(largest(&pair_gradient(loss, &optimum, &reference, &pairs)) < 1e-15);
        assert!(largest(&pair_gradient(loss, &reference, &reference, &pairs)) > 1e-2, "the start is no optimum");
    }
}

#[test]
fn ipo_stops_at_the_tilted_reference() {
    let preference = [[0.5, 0.8, 0.3], [0.2, 0.5, 0.6], [0.7, 0.4, 0.5]];
    let optimum = [0.609_979_984_950_162_9, 0.226_467_290_412_792_32, 0.163_552_724_637_044_7];
    let pairs = every_pair(&[0.2, 0.5, 0.3], |i, j| preference[i][j]);
    let gradient = pair_gradient(PairLoss::Ipo { beta: 0.25 }, &optimum, &[0.5, 0.3, 0.2], &pairs);
    assert!(largest(&gradient) < 1e-14, "{gradient:?}");
    // Two answers: log-ratio (p - 1/2)/tau.
    let pairs = every_pair(&[0.5, 0.5], |i, j| [[0.5, 0.7], [0.3, 0.5]][i][j]);
    let two = [0.598_687_660_112_452, 0.401_312_339_887_548];
    let gradient = pair_gradient(PairLoss::Ipo { beta: 0.5 }, &two, &[0.5, 0.5], &pairs);
    assert!(largest(&gradient) < 1e-14, "{gradient:?}");
}

#[test]
fn online_losses_stop_where_theory_says() {
    let nash = [0.614_437_362_830_580_8, 0.130_826_533_819_538, 0.254_736_103_349_881_1];
    let dpo_point = [0.323_917_630_575_654_15, 0.215_944_697_568_944_27, 0.460_137_671_855_401_5];
    let (ipo, dpo) = (PairLoss::Ipo { beta: 0.2 }, PairLoss::Dpo { beta: 0.2, label_smoothing: 0.0 });
    let on_policy = |loss, policy: &[f64; 3]| {
        largest(&pair_gradient(loss, policy, &MU, &every_pair(policy, |i, j| NOISY_CYCLE[i][j])))
    };
    assert!(on_policy(ipo, &nash) < 1e-11 && on_policy(dpo, &dpo_point) < 1e-14);
    assert!(on_policy(ipo, &dpo_point) > 1e-2 && on_policy(dpo, &nash) > 1e-3, "they stop at different points");
}

/// Expected gradient by logit of Nash-MD against an opponent.
fn nash_md_gradient(policy: &[f64; 3], opponent: &[f64], tau: f64) -> Vec<f64> {
    let logits = table(policy);
    let logprobs = logits.log_softmax(0, Kind::Double);
    let fixed = constants(MU.iter().map(|q| q.ln()).collect());
    let wins: Vec<f64> = NOISY_CYCLE.iter().map(|row| row.iter().zip(opponent).map(|(p, q)| p * q).sum()).collect();
    let (lp, reference) = (logprobs.unsqueeze(1), fixed.unsqueeze(1));
    let mask = reference.ones_like();
    let old = lp.detach();
    let inputs = TokenLogps::new(&lp, &mask).with_reference(&reference).with_old(&old);
    let output = nash_md_loss(&inputs, &constants(wins), tau).expect("valid inputs");
    (output.per_answer * constants(policy.to_vec())).sum(Kind::Double).backward();
    floats(&logits.grad())
}

fn mixture(policy: &[f64; 3], coef: f64) -> Vec<f64> {
    let powers: Vec<f64> = policy.iter().zip(MU).map(|(p, mu)| p.powf(1.0 - coef) * mu.powf(coef)).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|power| power / total).collect()
}

#[test]
fn nash_md_stops_at_its_fixed_points_and_is_the_gradient_of_its_game() {
    for (coef, point) in [
        (0.0, [0.614_437_362_830_580_8, 0.130_826_533_819_538, 0.254_736_103_349_881_1]),
        (0.125, [0.626_937_729_076_724_7, 0.119_284_834_697_026_32, 0.253_777_436_226_248_9]),
        (0.25, [0.641_303_484_237_116_5, 0.109_061_496_962_656_06, 0.249_635_018_800_227_32]),
        (0.5, [0.676_682_611_220_180_8, 0.093_458_943_652_845_6, 0.229_858_445_126_973_3]),
        (1.0, [0.769_371_015_288_009_1, 0.081_648_719_557_952_3, 0.148_980_265_154_038_6]),
    ] {
        let gradient = nash_md_gradient(&point, &mixture(&point, coef), 0.2);
        assert!(largest(&gradient) < 1e-12, "coef {coef}: {gradient:?}");
    }
    let policy = [0.2, 0.5, 0.3];
    let found = nash_md_gradient(&policy, &mixture(&policy, 0.25), 0.2);
    for (found, ascent) in
        found.iter().zip([0.084_042_758_625_392_19, -0.040_682_832_357_625_494, -0.043_359_926_267_766_69])
    {
        assert_close("gradient", *found, -ascent, 1e-9, 0.0);
    }
}

#[test]
fn the_reward_to_go_kl_is_the_kl_of_the_sequence() {
    // Two tokens of two kinds: the first, then the second given the first.
    let (first, second) = ([0.9f64, 0.1], [[0.8, 0.2], [0.3, 0.7]]);
    let (ref_first, ref_second) = ([0.4f64, 0.6], [[0.5f64, 0.5], [0.9, 0.1]]);
    let logits = [table(&first), table(&second[0]), table(&second[1])];
    let logprobs = logits.each_ref().map(|logits| logits.log_softmax(0, Kind::Double));
    let mut total = Tensor::from(0.0f64);
    for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let policy = Tensor::stack(&[logprobs[0].get(a), logprobs[1 + a as usize].get(b)], 0).unsqueeze(0);
        let (a, b) = (a as usize, b as usize);
        let reference = constants(vec![ref_first[a].ln(), ref_second[a][b].ln()]).unsqueeze(0);
        let mask = reference.ones_like();
        let old = policy.detach();
        let inputs = TokenLogps::new(&policy, &mask).with_reference(&reference).with_old(&old);
        // P = 1/2 leaves the KL alone.
        let output = nash_md_loss(&inputs, &constants(vec![0.5]), 1.0).expect("valid inputs");
        total += output.per_answer.sum(Kind::Double) * (first[a] * second[a][b]);
    }
    total.backward();
    let found: Vec<f64> = logits.iter().flat_map(|logits| floats(&logits.grad())).collect();
    let expected = [0.158_659_292_370_799_68, 0.199_626_388_197_593_5, -0.063_934_971_206_158_76];
    for (pair, expected) in found.chunks(2).zip(expected) {
        assert_close("kl", pair[0], expected, 1e-8, 0.0);
        assert_close("kl", pair[1], -expected, 1e-8, 0.0);
    }
}

#[test]
fn k3_differentiated_on_policy_is_the_reverse_kl() {
    let (p, q) = ([0.5, 0.3, 0.2], [0.2f64, 0.5, 0.3]);
    let logits = table(&p);
    let policy = logits.log_softmax(0, Kind::Double).unsqueeze(1);
    let (reference, old) = (constants(q.iter().map(|q| q.ln()).collect()).unsqueeze(1), policy.detach());
    let mask = reference.ones_like();
    let inputs = TokenLogps::new(&policy, &mask).with_reference(&reference).with_old(&old);
    let k3 = grpo_loss(&inputs, &constants(vec![0.0; 3]), 0.2, 1.0).expect("valid inputs").per_answer;
    let expectation = (k3 * constants(p.to_vec())).sum(Kind::Double);
    assert_close("KL(p, q)", expectation.double_value(&[]), 0.223_804_657_185_647_52, 1e-12, 0.0);
    expectation.backward();
    for (found, expected) in floats(&logits.grad()).iter().zip([0.3, -0.2, -0.1]) {
        assert_close("grad KL(q, p)", *found, expected, 1e-12, 0.0);
    }
}

#[test]
fn full_sppo_misses_the_exact_update_by_its_normaliser_alone() {
    // log Z - eta/2 at eta = 1: what the paper's replacement of log Z costs.
    let (policy, next) =
        ([0.6f64, 0.3, 0.1], [0.644_595_571_169_528_3, 0.243_587_426_252_148_16, 0.111_817_002_578_323_6]);
    let row = |values: &[f64]| constants(values.to_vec()).unsqueeze(0);
    let logs = |values: &[f64]| row(&values.iter().map(|p| p.ln()).collect::<Vec<_>>());
    let (updated, reference, rates) = (logs(&next), logs(&policy), row(&[0.58, 0.3, 0.62]));
    let mask = rates.ones_like();
    let inputs = ListLogps::new(&updated, &mask, &rates).with_reference(&reference);
    let loss = sppo_list_loss(&inputs, 1.0).expect("valid inputs").per_list.double_value(&[0]);
    assert_close("squared residual", loss, 0.008_306_556_523_121_511f64.powi(2), 1e-9, 0.0);
    let exact = logs(&[0.649_972_240_604_975_2, 0.245_619_225_923_394_55, 0.112_749_685_157_937_61]);
    let inputs = ListLogps::new(&exact, &mask, &rates).with_reference(&reference);
    assert!(sppo_list_loss(&inputs, 1.0).expect("valid inputs").per_list.double_value(&[0]) < 1e-28);
}

#[test]
fn bonbon_aims_at_the_best_of_n() {
    for (n, beta) in [(2.0, 0.5), (4.0, 0.090_909_090_909_090_91), (8.0, 0.027_548_209_366_391_185)] {
        let batch = single([0.5 / beta, 0.0], [0.0, 0.0]);
        let found = compute(&PairLoss::Bonbon { n, alpha: 0.0 }, &batch, Kind::Double);
        assert!(found.loss[0].abs() < 1e-20 && largest(&found.gradients[0]) < 1e-9, "{n}: {:?}", found.loss);
    }
}

/// One pair with the given log-probs of chosen and rejected.
fn single(policy: [f64; 2], reference: [f64; 2]) -> Batch {
    Batch {
        policy: policy.map(|value| vec![value]),
        reference: reference.map(|value| vec![value]),
        tokens: [vec![7.0], vec![4.0]],
        scores: [vec![1.5], vec![0.5]],
        from_reference: 1.0,
        p: None,
    }
}

/// Asserts that two losses have the same value and gradients, up to a shift of the value.
fn same(a: PairLoss, b: PairLoss, batch: &Batch, tolerance: f64) {
    let (a_found, b_found) = (compute(&a, batch, Kind::Double), compute(&b, batch, Kind::Double));
    assert_close(&format!("{a:?} {b:?}"), a_found.loss[0], b_found.loss[0], tolerance, 1e-12);
    for side in 0..2 {
        assert_close(&format!("{a:?} {b:?}"), a_found.gradients[side][0], b_found.gradients[side][0], tolerance, 1e-12);
    }
}

#[test]
fn losses_coincide_where_their_papers_say() {
    let beta = 0.3;
    let dpo = PairLoss::Dpo { beta, label_smoothing: 0.0 };
    for (policy, reference) in [([-3.0, -4.0], [-5.0, -4.5]), ([-9.0, -6.0], [-9.5, -8.0])] {
        let batch = single(policy, reference);
        same(PairLoss::Xpo { beta, alpha: 0.0 }, dpo, &batch, 1e-12);
        same(PairLoss::DpoShift { beta, lambda: 1.0 }, dpo, &batch, 1e-12);
        same(PairLoss::RDpo { beta, alpha: 0.0 }, dpo, &batch, 1e-12);
        same(PairLoss::Rpo { beta, alpha: 0.0 }, dpo, &batch, 1e-12);
        same(PairLoss::Robust { beta, label_smoothing: 0.0 }, dpo, &batch, 1e-12);
        same(PairLoss::Odpo { beta, alpha: 1.0 }, dpo, &batch, 1e-12); // the scores are 1 apart
        same(PairLoss::Dpop { beta, lambda: 50.0 }, dpo, &batch, 1e-12); // chosen is not below the reference
        let simpo = PairLoss::Simpo { beta, gamma: 0.2 };
        same(PairLoss::Alphapo { beta, gamma: 0.2, alpha: 1e-7 }, simpo, &batch, 1e-5);
    }
}

#[test]
fn robust_dpo_is_clean_dpo_on_average() {
    let (beta, flipped) = (0.3, 0.2);
    let batch = single([-3.0, -4.0], [-5.0, -4.5]);
    let turned = single([-4.0, -3.0], [-4.5, -5.0]);
    let robust = PairLoss::Robust { beta, label_smoothing: flipped };
    let value = |batch: &Batch| compute(&robust, batch, Kind::Double).loss[0];
    let clean = compute(&PairLoss::Dpo { beta, label_smoothing: 0.0 }, &batch, Kind::Double).loss[0];
    assert_close("expectation", (1.0 - flipped) * value(&batch) + flipped * value(&turned), clean, 1e-12, 0.0);
}

#[test]
fn soft_labels_stop_at_their_log_odds() {
    let (beta, p) = (0.5, 0.8f64);
    let delta = (p / (1.0 - p)).ln() / beta;
    let batch = Batch { p: Some(vec![p]), ..single([delta, 0.0], [0.0, 0.0]) };
    let found = compute(&PairLoss::Dpo { beta, label_smoothing: 0.0 }, &batch, Kind::Double);
    assert!(largest(&found.gradients[0]) < 1e-15, "{:?}", found.gradients);
}

#[test]
fn asft_is_likelihood_and_unlikelihood() {
    let lambda = 0.1;
    let found = compute(&PairLoss::Asft { lambda }, &single([-3.5, -6.0], [0.0, 0.0]), Kind::Double);
    let (chosen, rejected) = (-3.5 / 7.0, -6.0f64 / 4.0);
    let expected = -(1.0 + lambda) * chosen - lambda * (1.0 - rejected.exp()).ln();
    assert_close("asft", found.loss[0], expected, 1e-12, 0.0);
}
