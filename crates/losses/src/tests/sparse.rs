//! SparsePO and MaPO: the golden value, plain arithmetic on whole distributions, the masks against plain loops, and the edges.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::{assert_close, floats};
use crate::{
    Error, MaskHead, MaskedSums, PairLogps, PairLoss, activation_masks, dpo_loss, first_mask_heads, learned_masks,
    mapo_loss, sparse_po_loss,
};

const MAPO: PairLoss = PairLoss::Mapo { beta: 0.1 };

/// One side of a pair, token by token.
#[derive(Clone)]
struct Side {
    policy: Vec<f64>,
    reference: Vec<f64>,
    divergence: Vec<f64>,
    masks: [Vec<f64>; 2],
}

/// Computes the loss of one pair and its gradients by every policy log-prob and every divergence, chosen then rejected.
fn compute(loss: &PairLoss, sides: &[Side; 2], kind: Kind) -> (f64, [Vec<f64>; 2], [Vec<f64>; 2]) {
    let vector = |values: &[f64]| Tensor::from_slice(values).to_kind(kind);
    let leaf = |values: &[f64]| vector(values).set_requires_grad(true);
    let policy = sides.each_ref().map(|side| leaf(&side.policy));
    let kl = sides.each_ref().map(|side| leaf(&side.divergence));
    let sum = |values: Tensor| values.sum_dim_intlist(0i64, true, kind);
    let at = |i: usize| {
        let ratio = &policy[i] - vector(&sides[i].reference);
        let [reward, divergence] = sides[i].masks.each_ref().map(|mask| vector(mask));
        [sum(&reward * ratio), sum(&divergence * &kl[i]), sum(reward) + sum(divergence)]
    };
    let ([u, d, m], [v, e, n]) = (at(0), at(1));
    let [chosen, rejected] = policy.each_ref().map(|tokens| sum(tokens.shallow_clone()));
    let [held, other] = sides.each_ref().map(|side| sum(vector(&side.reference)));
    let sums = MaskedSums { ratios: [&u, &v], divergences: [&d, &e], masks: [&m, &n] };
    let inputs = PairLogps::new(&chosen, &rejected).with_reference(&held, &other).with_masked(sums);
    let value = loss.compute(&inputs).expect("valid").per_pair;
    value.sum(kind).backward();
    let gradients = |leaves: &[Tensor; 2]| {
        let of = |leaf: &Tensor| if leaf.grad().defined() { floats(&leaf.grad()) } else { vec![0.0; leaf.numel()] };
        leaves.each_ref().map(of)
    };
    (value.double_value(&[0]), gradients(&policy), gradients(&kl))
}

#[test]
fn the_golden_pair_has_its_value_and_gradients() {
    let golden: Value = serde_json::from_str(include_str!("../../testdata/sparse.json")).expect("valid JSON");
    let side = |name: &str| {
        let numbers = |key: &str| -> Vec<f64> {
            let list = golden["inputs"][name][key].as_array().expect("a list");
            list.iter().map(|value| value.as_f64().expect("a number")).collect()
        };
        let masks = [numbers("m"), numbers("n")];
        Side { policy: numbers("pi"), reference: numbers("ref"), divergence: numbers("kl"), masks }
    };
    let beta = golden["inputs"]["beta"].as_f64().expect("a number");
    let loss = PairLoss::SparsePo { beta, lambda: 0.0, heads: 2.0, mask_decay: 0.0 };
    for (kind, relative, floor) in [(Kind::Double, 1e-9, 1e-12), (Kind::Float, 1e-4, 1e-6)] {
        let (value, gradients, _) = compute(&loss, &[side("chosen"), side("rejected")], kind);
        assert_close("loss", value, golden["loss"].as_f64().expect("a number"), relative, floor);
        for (found, key) in gradients.concat().into_iter().zip(["a0", "a1", "b0", "b1"]) {
            assert_close(key, found, golden["grad"][key].as_f64().expect("a number"), relative, floor);
        }
    }
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = peak + logits.iter().map(|z| (z - peak).exp()).sum::<f64>().ln();
    logits.iter().map(|z| z - total).collect()
}

/// Tokens drawn from tables of logits over four tokens, with their divergence over the whole table.
fn side(seed: f64, tokens: usize, mask: impl Fn(usize) -> [f64; 2]) -> Side {
    let mut side = Side { policy: vec![], reference: vec![], divergence: vec![], masks: [vec![], vec![]] };
    for t in 0..tokens {
        let logits = |shift: f64| (0..4).map(move |v| 2.0 * (seed + shift + 1.7 * t as f64 + 2.3 * f64::from(v)).sin());
        let (p, q) = (log_softmax(&logits(0.0).collect::<Vec<_>>()), log_softmax(&logits(0.4).collect::<Vec<_>>()));
        side.policy.push(p[t % 4]);
        side.reference.push(q[t % 4]);
        side.divergence.push(q.iter().zip(&p).map(|(q, p)| q.exp() * (q - p)).sum());
        side.masks.iter_mut().zip(mask(t)).for_each(|(masks, mask)| masks.push(mask));
    }
    side
}

#[test]
fn masks_of_one_are_tdpo_and_without_divergence_dpo() {
    let sides = [side(0.3, 5, |_| [1.0; 2]), side(1.1, 3, |_| [1.0; 2])];
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let margin = |i: usize| sum(&sides[i].policy) - sum(&sides[i].reference);
    // TDPO1: the log-ratio margin less (sequential divergence of the rejected answer less that of the chosen one).
    let tdpo = margin(0) - margin(1) - (sum(&sides[1].divergence) - sum(&sides[0].divergence));
    assert!((tdpo - (margin(0) - margin(1))).abs() > 0.01, "the divergences differ");
    let cost = |z: f64| (-z).exp().ln_1p();
    assert_close("tdpo", compute(&MAPO, &sides, Kind::Double).0, cost(0.1 * tdpo), 1e-12, 0.0);

    let without = sides.map(|side| Side { masks: [side.masks[0].clone(), vec![0.0; side.policy.len()]], ..side });
    let (value, gradients, _) = compute(&MAPO, &without, Kind::Double);
    let [chosen, rejected] = [0, 1].map(|i: usize| Tensor::from_slice(&[sum(&without[i].policy)]));
    let [held, other] = [0, 1].map(|i: usize| Tensor::from_slice(&[sum(&without[i].reference)]));
    let leaf = chosen.set_requires_grad(true);
    let dpo = dpo_loss(&PairLogps::new(&leaf, &rejected).with_reference(&held, &other), 0.1, 0.0).expect("valid");
    assert_close("dpo", value, dpo.per_pair.double_value(&[0]), 1e-12, 0.0);
    dpo.per_pair.sum(Kind::Double).backward();
    gradients[0].iter().for_each(|found| assert_close("gradient", *found, leaf.grad().double_value(&[0]), 1e-12, 0.0));
}

#[test]
fn masks_of_zero_teach_nothing() {
    let sides = [side(0.3, 5, |_| [0.0; 2]), side(1.1, 3, |_| [0.0; 2])];
    for loss in [MAPO, PairLoss::SparsePo { beta: 0.1, lambda: 0.5, heads: 1.0, mask_decay: 0.01 }] {
        let (value, gradients, others) = compute(&loss, &sides, Kind::Double);
        assert_close("log 2", value, std::f64::consts::LN_2, 1e-15, 0.0);
        assert!(gradients.iter().chain(&others).flatten().all(|gradient| *gradient == 0.0), "{gradients:?}");
    }
}

#[test]
fn both_terms_carry_the_gradient_and_sizes_cost() {
    let mask = |t: usize| [0.2 + 0.3 * (t % 3) as f64, 0.7 - 0.2 * (t % 2) as f64];
    let sides = [side(0.3, 5, mask), side(1.1, 3, mask)];
    let mass = |side: &Side| side.masks.concat().iter().sum::<f64>();
    let plain = |sides: &[Side; 2], share: f64| {
        let masked = |side: &Side| -> f64 {
            let token = |t: usize| {
                let [reward, divergence] = side.masks.each_ref().map(|mask| mask[t]);
                reward * (side.policy[t] - side.reference[t]) + divergence * side.divergence[t]
            };
            (0..side.policy.len()).map(token).sum()
        };
        (-0.4 * (masked(&sides[0]) - masked(&sides[1]))).exp().ln_1p() + share * (mass(&sides[0]) + mass(&sides[1]))
    };
    for (heads, share) in [(1.0, 0.015), (2.0, 0.03)] {
        let loss = PairLoss::SparsePo { beta: 0.4, lambda: 0.03, heads, mask_decay: 0.01 };
        let (value, by_policy, by_divergence) = compute(&loss, &sides, Kind::Double);
        assert_close("value", value, plain(&sides, share), 1e-12, 0.0);
        let numeric = |i: usize, move_it: &dyn Fn(&mut Side, f64)| {
            let value = |step: f64| {
                let mut moved = sides.clone();
                move_it(&mut moved[i], step);
                plain(&moved, share)
            };
            (value(1e-6) - value(-1e-6)) / 2e-6
        };
        for (i, side) in sides.iter().enumerate() {
            for t in 0..side.policy.len() {
                let wanted = numeric(i, &|side, step| side.policy[t] += step);
                assert_close("policy", by_policy[i][t], wanted, 1e-6, 1e-9);
                let wanted = numeric(i, &|side, step| side.divergence[t] += step);
                assert_close("divergence", by_divergence[i][t], wanted, 1e-6, 1e-9);
            }
        }
    }
}

#[test]
fn far_tokens_stay_finite_in_float32() {
    let far = |sign: f64| Side {
        policy: vec![-200.0 - 200.0 * sign, -1.0],
        reference: vec![-200.0 + 200.0 * sign, -1.0],
        divergence: vec![200.0, 0.0],
        masks: [vec![1.0, 0.0], vec![1.0, 1.0]],
    };
    for sides in [[far(0.5), far(-0.5)], [far(-0.5), far(0.5)]] {
        let (value, by_policy, by_divergence) = compute(&MAPO, &sides, Kind::Float);
        let mut all = by_policy.iter().chain(&by_divergence).flatten();
        assert!(value.is_finite() && all.all(|gradient| gradient.is_finite()), "{value}");
    }
}

#[test]
fn activation_masks_are_standardised_and_rescaled_layer_by_layer() {
    let rows = [[0.4, -3.0, 7.0], [1.4, -2.5, 7.0], [-0.6, 1.0, 7.0], [0.0, 0.5, 7.0]];
    let found = floats(&activation_masks(&Tensor::from_slice(&rows.concat()).view([4, 3])));
    // The authors' steps one by one: z-norm over the tokens, then to [0, 1], then the mean over layers.
    let of_layer = |layer: usize| -> Vec<f64> {
        let values: Vec<f64> = rows.iter().map(|row| row[layer]).collect();
        let mean = values.iter().sum::<f64>() / 4.0;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
        if deviation == 0.0 {
            return vec![1.0; 4];
        }
        let normed: Vec<f64> = values.iter().map(|value| (value - mean) / deviation).collect();
        let (low, high) = normed.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        normed.iter().map(|value| (value - low) / (high - low)).collect()
    };
    let layers = [0, 1, 2].map(of_layer);
    for (t, found) in found.into_iter().enumerate() {
        assert_close("mask", found, layers.iter().map(|layer| layer[t]).sum::<f64>() / 3.0, 1e-12, 1e-15);
        assert!((0.0..=1.0).contains(&found));
    }
    let one = activation_masks(&Tensor::from_slice(&[0.3f32, -2.0]).view([1, 2]));
    assert_eq!(floats(&one), [1.0]);
}

/// The head of the test: weights `[2, 3]`, biases `[2]` and mixer `[1, 2]`, end to end.
const HEAD: [f64; 10] = [0.5, -0.3, 0.8, -0.6, 0.9, 0.1, 0.2, 0.4, 0.7, -0.5];
const STATES: [f64; 12] = [0.3, -1.0, 2.0, 0.7, 0.1, -0.4, 1.5, 1.0, -2.0, 0.2, 3.0, 0.6];
const EPS: f64 = 1e-5;

fn plain_masks(head: &[f64]) -> Vec<f64> {
    let of_token = |states: &[f64]| {
        let of_layer = |l: usize| {
            let h = &states[3 * l..3 * l + 3];
            let mean = h.iter().sum::<f64>() / 3.0;
            let deviation = (h.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0 + EPS).sqrt();
            let score: f64 = h.iter().zip(&head[3 * l..]).map(|(x, w)| w * (x - mean) / deviation).sum();
            head[8 + l] * (score + head[6 + l]).max(0.0)
        };
        (of_layer(0) + of_layer(1)).max(0.0)
    };
    STATES.chunks(6).map(of_token).collect()
}

#[test]
fn learned_masks_and_their_gradients_are_those_of_plain_loops() {
    let leaf =
        |at: std::ops::Range<usize>, shape: &[i64]| Tensor::from_slice(&HEAD[at]).view(shape).set_requires_grad(true);
    let (weight, bias, mixer) = (leaf(0..6, &[2, 3]), leaf(6..8, &[2]), leaf(8..10, &[1, 2]));
    let states = Tensor::from_slice(&STATES).view([2, 2, 3]);
    let head = MaskHead { weight: &weight, bias: &bias, mixer: &mixer };
    let masks = learned_masks(&states, &head, EPS).expect("it fits");
    let wanted = plain_masks(&HEAD);
    assert!(wanted.iter().any(|mask| *mask > 0.1), "{wanted:?}");
    floats(&masks).iter().zip(&wanted).for_each(|(found, wanted)| assert_close("mask", *found, *wanted, 1e-12, 1e-15));
    (&masks * Tensor::from_slice(&[0.3, -1.2])).sum(Kind::Double).backward();
    let found = [&weight, &bias, &mixer].map(|leaf| floats(&leaf.grad().flatten(0, -1))).concat();
    for (i, found) in found.into_iter().enumerate() {
        let value = |step: f64| {
            let mut head = HEAD;
            head[i] += step;
            let masks = plain_masks(&head);
            0.3 * masks[0] - 1.2 * masks[1]
        };
        assert_close("gradient", found, (value(1e-6) - value(-1e-6)) / 2e-6, 1e-6, 1e-8);
    }
    let error = learned_masks(&states.narrow(1, 0, 1), &head, EPS).expect_err("refused");
    assert_eq!(error.to_string(), "expected weight of shape [1, 3], got [2, 3]");
}

#[test]
fn heads_start_with_masks_of_one_whose_gradient_is_alive() {
    let first = first_mask_heads(2, 3, &["reward", "divergence"]);
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["reward.weight", "reward.bias", "reward.mixer"]);
    assert!(names.len() == 6 && names[3].starts_with("divergence."));
    let [weight, bias, mixer] = [0, 1, 2].map(|i: usize| first[i].1.set_requires_grad(true));
    let states = Tensor::from_slice(&STATES).view([2, 2, 3]);
    let masks = learned_masks(&states, &MaskHead { weight: &weight, bias: &bias, mixer: &mixer }, EPS).expect("fits");
    assert_eq!(floats(&masks), [1.0, 1.0]);
    masks.get(0).backward();
    for leaf in [&weight, &bias, &mixer] {
        assert!(leaf.grad().abs().max().double_value(&[]) > 0.0);
    }
}

#[test]
fn what_is_absent_or_out_of_range_is_named() {
    let x = Tensor::from_slice(&[-1.0f64]);
    let inputs = PairLogps::new(&x, &x).with_reference(&x, &x);
    assert!(matches!(mapo_loss(&inputs, 0.1), Err(Error::Missing { setter: "with_masked", .. })));
    let two = Tensor::from_slice(&[-1.0f64, -2.0]);
    let sums = MaskedSums { ratios: [&x, &x], divergences: [&x, &two], masks: [&x, &x] };
    let error = mapo_loss(&inputs.with_masked(sums), 0.1).expect_err("refused");
    assert_eq!(error.to_string(), "expected divergences_rejected of shape [1], got [2]");
    assert!(matches!(sparse_po_loss(&inputs, 0.1, 0.0, 1.5, 0.0), Err(Error::Param { name: "heads", .. })));
    assert!(matches!(sparse_po_loss(&inputs, 0.1, -1.0, 1.0, 0.0), Err(Error::Param { name: "lambda", .. })));
}
