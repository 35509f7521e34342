//! Values and gradients against the golden file, finite differences, exact optima and bad inputs.
//!
//! `testdata/losses.json` is cut from the project's golden values, which PyTorch autograd computed in float64:
//! `pc = torch.tensor(v["pc"], dtype=torch.float64, requires_grad=True)`, ..., `loss.backward()`, `d_pc = pc.grad`.

mod closed_form;
mod cringe;
mod degree;
mod direction;
mod list;
mod pal;
mod reward;
mod single;
mod sparse;
mod token;
mod transport;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::{Error, LossOutput, MaskedSums, PairLogps, PairLoss, Result, dpo_loss, ipo_loss};

/// Vectors of a batch: one number a pair.
#[derive(Clone)]
struct Batch {
    policy: [Vec<f64>; 2],
    reference: [Vec<f64>; 2],
    tokens: [Vec<f64>; 2],
    scores: [Vec<f64>; 2],
    /// 1 where the reference gave the chosen answers, 0 where it gave the rejected ones.
    from_reference: f64,
    p: Option<Vec<f64>>,
}

/// What autograd gives for a batch.
struct Computed {
    loss: Vec<f64>,
    gradients: [Vec<f64>; 2],
}

fn vector(values: &[f64], kind: Kind) -> Tensor {
    Tensor::from_slice(values).to_kind(kind)
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double)).expect("a vector")
}

fn compute(loss: &PairLoss, batch: &Batch, kind: Kind) -> Computed {
    let [chosen, rejected] = batch.policy.clone().map(|v| vector(&v, kind).set_requires_grad(true));
    let [ref_chosen, ref_rejected] = batch.reference.clone().map(|v| vector(&v, kind));
    let [chosen_tokens, rejected_tokens] = batch.tokens.clone().map(|v| vector(&v, Kind::Int64));
    let [chosen_scores, rejected_scores] = batch.scores.clone().map(|v| vector(&v, Kind::Double));
    let from_reference = [batch.from_reference, 1.0 - batch.from_reference].map(|mask| chosen.detach().full_like(mask));
    let p = batch.p.as_ref().map(|p| vector(p, Kind::Double));
    let matched = [2.5, -1.5].map(|value| chosen.detach().full_like(value));
    let (sign, terms) = (chosen.detach().ones_like(), &rejected * -0.1);
    let told = (&chosen + &rejected) * -0.02;
    let tails = [&chosen, &rejected, &ref_chosen, &ref_rejected].map(|sum| sum * 0.4);
    let masked = [(&chosen, &ref_chosen), (&rejected, &ref_rejected)].map(|(policy, held)| (policy - held) * 0.6);
    let divergences = [&chosen, &rejected].map(|policy| policy * -0.05);
    let masks = [&chosen_tokens, &rejected_tokens].map(|tokens| tokens.to_kind(kind) * 0.3);
    let masked = MaskedSums { ratios: masked.each_ref(), divergences: divergences.each_ref(), masks: masks.each_ref() };
    let mut inputs = PairLogps::new(&chosen, &rejected)
        .with_masked(masked)
        .with_reference(&ref_chosen, &ref_rejected)
        .with_tokens(&chosen_tokens, &rejected_tokens)
        .with_scores(&chosen_scores, &rejected_scores)
        .with_from_reference(&from_reference[0], &from_reference[1])
        .with_matched(&matched[0], &matched[1])
        .with_signs(&sign, &sign)
        .with_token_terms(&terms)
        .with_degree_terms(&told)
        .with_tails([&tails[0], &tails[1]], [&tails[2], &tails[3]]);
    if let Some(p) = &p {
        inputs = inputs.with_p(p);
    }
    let output = loss.compute(&inputs).expect("valid inputs");
    output.per_pair.sum(output.per_pair.kind()).backward();
    Computed { loss: floats(&output.per_pair), gradients: [floats(&chosen.grad()), floats(&rejected.grad())] }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../testdata/losses.json")).expect("valid JSON")
}

fn golden_batch(golden: &Value) -> (Vec<String>, Batch) {
    let vectors = golden["vectors"].as_object().expect("an object");
    let column = |key: &str| vectors.values().map(|v| v[key].as_f64().expect("a number")).collect::<Vec<f64>>();
    let batch = Batch {
        policy: [column("pc"), column("pr")],
        reference: [column("rc"), column("rr")],
        tokens: [column("lc"), column("lr")],
        scores: [column("sc"), column("sr")],
        from_reference: 0.0,
        p: None,
    };
    (vectors.keys().cloned().collect(), batch)
}

/// Builds the loss that a name of the golden file stands for, and whether its labels are σ(s⁺ − s⁻).
fn golden_loss(name: &str, hyper: &Value) -> (PairLoss, bool) {
    let (ours, soft) = match name {
        "cdpo" => ("dpo", false),
        "dpo_soft_label" => ("dpo", true),
        "rdpo_robust" => ("robust", false),
        "r_dpo_len" => ("r_dpo", false),
        "rpo_nll" => ("rpo", false),
        "ipo_sum" => ("ipo", false),
        "ipo_online_soft" => ("ipo", true),
        "slic_hinge_ref" => ("hinge", false),
        "bonbon_n8" => ("bonbon", false),
        "sppo_soft" => ("sppo", true),
        "xpo_chosen_from_ref" | "xpo_rejected_from_ref" => ("xpo", false),
        same => (same, false),
    };
    let (_, keys, _) =
        PairLoss::ALL.iter().find(|(known, ..)| *known == ours).unwrap_or_else(|| panic!("no loss {name}"));
    // The golden file writes the papers' letters.
    let letters = |key: &str| match key {
        "label_smoothing" => "eps",
        "lambda" => "lam",
        "delta" => "delta_",
        "beta" if hyper["tau"].is_number() && hyper["beta"].is_null() => "tau",
        _ => "",
    };
    let value = |key: &str| hyper[key].as_f64().or_else(|| hyper[letters(key)].as_f64());
    // Only DPO without smoothing leaves a key out.
    let params = keys.iter().map(|key| ((*key).to_owned(), value(key).unwrap_or_default())).collect();
    (PairLoss::from_name(ours, &params).expect("its keys"), soft)
}

fn assert_close(what: &str, found: f64, wanted: f64, relative: f64, floor: f64) {
    let allowed = (relative * wanted.abs()).max(floor);
    assert!((found - wanted).abs() <= allowed, "{what}: {found:e}, expected {wanted:e} within {allowed:e}");
}

fn check_golden(kind: Kind, relative: f64, floor: f64) -> usize {
    let golden = golden();
    let (names, batch) = golden_batch(&golden);
    let vectors = golden["vectors"].as_object().expect("an object");
    let score = |v: &Value, key: &str| v[key].as_f64().expect("a number");
    let soft: Vec<f64> = vectors.values().map(|v| 1.0 / (1.0 + (score(v, "sr") - score(v, "sc")).exp())).collect();
    let mut checked = 0;
    for (name, entry) in golden["losses"].as_object().expect("an object") {
        let (loss, soft_label) = golden_loss(name, &entry["hyper"]);
        let from_reference = f64::from(u8::from(name == "xpo_chosen_from_ref"));
        let batch = Batch { p: soft_label.then(|| soft.clone()), from_reference, ..batch.clone() };
        let computed = compute(&loss, &batch, kind);
        for (i, vector) in names.iter().enumerate() {
            let wanted = |key: &str| entry["values"][vector][key].as_f64().expect("a number");
            let what = |part: &str| format!("{name} on {vector}: {part}");
            assert_close(&what("loss"), computed.loss[i], wanted("loss"), relative, floor);
            assert_close(&what("d_pc"), computed.gradients[0][i], wanted("d_pc"), relative, floor);
            assert_close(&what("d_pr"), computed.gradients[1][i], wanted("d_pr"), relative, floor);
            checked += 3;
        }
    }
    checked
}

#[test]
fn golden_values_and_gradients_in_float64() {
    assert_eq!(check_golden(Kind::Double, 1e-9, 1e-12), 30 * 5 * 3);
}

#[test]
fn golden_values_and_gradients_in_float32() {
    assert_eq!(check_golden(Kind::Float, 1e-4, 1e-6), 30 * 5 * 3);
}

/// Every loss with plain hyper-parameters, by its keys.
fn every_loss() -> Vec<PairLoss> {
    let value = |key: &&str| match *key {
        "beta" => 0.3,
        "label_smoothing" => 0.2,
        "delta" => 1.3,
        "n" => 4.0,
        "tau" => 0.5,
        "lambda" => 0.7,
        "k" | "heads" | "degrees" => 2.0,
        _ => 0.07,
    };
    let build = |(name, keys, _): &(&str, &[&str], bool)| {
        PairLoss::from_name(name, &keys.iter().map(|key| ((*key).to_owned(), value(key))).collect()).expect("its keys")
    };
    PairLoss::ALL.iter().map(build).collect()
}

/// A batch away from the hinges' kinks, with hard, soft and reversed labels.
fn soft_batch() -> Batch {
    Batch {
        policy: [vec![-12.3, -40.1, -7.7, -30.0], vec![-15.9, -33.4, -7.1, -55.5]],
        reference: [vec![-13.0, -38.0, -9.2, -44.0], vec![-14.1, -36.3, -6.4, -47.0]],
        tokens: [vec![4.0, 17.0, 3.0, 11.0], vec![9.0, 12.0, 2.0, 31.0]],
        scores: [vec![2.0, 0.5, 1.0, 3.0], vec![1.5, 0.1, -1.0, 0.0]],
        from_reference: 0.0,
        p: Some(vec![1.0, 0.63, 0.08, 0.5]),
    }
}

#[test]
fn gradients_match_central_differences() {
    let step = 1e-5;
    // Half of the value of some, or the gate of another, is held fixed: see tests/transport.rs and tests/cringe.rs.
    let held = |loss: &PairLoss| {
        matches!(loss, PairLoss::AotUnpaired { .. } | PairLoss::Dove { .. } | PairLoss::Cringe { .. })
    };
    for loss in every_loss().into_iter().filter(|loss| !held(loss)) {
        let batch = soft_batch();
        let exact = compute(&loss, &batch, Kind::Double);
        for side in 0..2 {
            let shifted = |by: f64| {
                let mut moved = batch.clone();
                moved.policy[side].iter_mut().for_each(|value| *value += by);
                compute(&loss, &moved, Kind::Double).loss
            };
            let (up, down) = (shifted(step), shifted(-step));
            for i in 0..up.len() {
                let numeric = (up[i] - down[i]) / (2.0 * step);
                assert_close(&format!("{loss:?} side {side} pair {i}"), exact.gradients[side][i], numeric, 1e-6, 1e-6);
            }
        }
    }
}

#[test]
fn soft_labels_mix_the_two_orders() {
    let batch = soft_batch();
    let p = batch.p.clone().expect("soft");
    // These read the label in another way: they ask for hard labels, or regress on a probability or a gap.
    let mixes = |loss: &PairLoss| {
        !(loss.needs_scores()
            || loss.needs_matching()
            || matches!(loss, PairLoss::Sppo { .. } | PairLoss::Cringe { .. }))
    };
    for loss in every_loss().into_iter().filter(mixes) {
        let mixed = compute(&loss, &batch, Kind::Double).loss;
        let straight = compute(&loss, &Batch { p: None, ..batch.clone() }, Kind::Double).loss;
        let swap = |[a, b]: [Vec<f64>; 2]| [b, a];
        let swapped = Batch {
            policy: swap(batch.policy.clone()),
            reference: swap(batch.reference.clone()),
            tokens: swap(batch.tokens.clone()),
            scores: batch.scores.clone(),
            from_reference: 1.0 - batch.from_reference,
            p: None,
        };
        let reversed = compute(&loss, &swapped, Kind::Double).loss;
        for i in 0..p.len() {
            let wanted = p[i] * straight[i] + (1.0 - p[i]) * reversed[i];
            assert_close(&format!("{loss:?} pair {i}"), mixed[i], wanted, 1e-12, 1e-12);
        }
    }
}

#[test]
fn extreme_log_ratios_stay_finite_in_float32() {
    for loss in every_loss() {
        for p in [None, Some(vec![0.0, 1.0])] {
            let batch = Batch {
                policy: [vec![-200.0, -400.0], vec![-400.0, -200.0]],
                reference: [vec![-400.0, -200.0], vec![-200.0, -400.0]],
                tokens: [vec![0.0, 1.0], vec![1.0, 0.0]],
                scores: [vec![1.0, 1.0], vec![1.0, 0.0]],
                from_reference: 1.0,
                p,
            };
            let computed = compute(&loss, &batch, Kind::Float);
            let all = computed.gradients.iter().flatten().chain(&computed.loss);
            assert!(all.clone().all(|value| value.is_finite()), "{loss:?}: {:?}", all.collect::<Vec<_>>());
        }
    }
}

#[test]
fn ipo_stops_at_the_known_optimum() {
    // Two actions, P(y⁺ ≻ y⁻) = 0.7, τ = 0.5: the optimum has Δ = 0.4, π = (0.59868766, 0.40131234).
    let log = |p: f64| vec![p.ln()];
    let batch = Batch {
        policy: [log(0.598_687_660_112_452), log(0.401_312_339_887_548)],
        reference: [log(0.5), log(0.5)],
        tokens: [vec![1.0], vec![1.0]],
        scores: [vec![1.0], vec![0.0]],
        from_reference: 0.0,
        p: Some(vec![0.7]),
    };
    let computed = compute(&PairLoss::Ipo { beta: 0.5 }, &batch, Kind::Double);
    assert_close("gradient at the optimum", computed.gradients[0][0], 0.0, 0.0, 1e-12);
}

fn dpo(inputs: &PairLogps) -> Result<LossOutput> {
    dpo_loss(inputs, 0.1, 0.0)
}

#[test]
fn weights_scale_and_rewards_are_detached() {
    let [chosen, rejected] = [[-3.0f64, -4.0], [-5.0, -6.0]].map(|v| Tensor::from_slice(&v).set_requires_grad(true));
    let [ref_chosen, ref_rejected] = [[-3.5f64, -2.0], [-4.0, -6.0]].map(|v| Tensor::from_slice(&v));
    let weight = Tensor::from_slice(&[2.0f32, 0.0]);
    let inputs = PairLogps::new(&chosen, &rejected).with_reference(&ref_chosen, &ref_rejected);
    let plain = floats(&dpo(&inputs).expect("valid").per_pair);
    let output = dpo(&inputs.with_weight(&weight)).expect("valid");
    assert_eq!(floats(&output.per_pair), [2.0 * plain[0], 0.0]);
    for (found, wanted) in floats(&output.chosen_rewards).iter().zip([0.05, -0.2]) {
        assert_close("chosen reward", *found, wanted, 1e-12, 0.0);
    }
    for (found, wanted) in floats(&output.rejected_rewards).iter().zip([-0.1, 0.0]) {
        assert_close("rejected reward", *found, wanted, 1e-12, 1e-15);
    }
    assert!(!output.chosen_rewards.requires_grad() && !output.rejected_rewards.requires_grad());
    assert!(output.per_pair.requires_grad());
}

#[test]
fn wrong_shapes_are_named() {
    let eight = Tensor::zeros([8], (Kind::Float, Device::Cpu));
    let seven = Tensor::zeros([7], (Kind::Float, Device::Cpu));
    let error = dpo(&PairLogps::new(&eight, &eight).with_reference(&eight, &seven)).expect_err("refused");
    assert_eq!(error.to_string(), "expected ref_rejected of shape [8], got [7]");
    let error =
        dpo(&PairLogps::new(&eight, &eight).with_reference(&eight, &eight).with_p(&seven)).expect_err("refused");
    assert_eq!(error.to_string(), "expected p of shape [8], got [7]");
    let matrix = Tensor::zeros([8, 2], (Kind::Float, Device::Cpu));
    let error = dpo(&PairLogps::new(&matrix, &matrix)).expect_err("refused");
    assert!(matches!(&error, Error::NotAVector { found } if found == &[8, 2]), "{error}");
}

#[test]
fn absent_inputs_low_precision_and_bad_parameters_are_named() {
    let x = Tensor::zeros([2], (Kind::Float, Device::Cpu));
    let half = x.to_kind(Kind::BFloat16);
    let error = dpo(&PairLogps::new(&x, &x)).expect_err("refused");
    assert!(error.to_string().starts_with("loss dpo needs reference log-probabilities"), "{error}");
    let error =
        PairLoss::IpoAvg { beta: 0.1 }.compute(&PairLogps::new(&x, &x).with_reference(&x, &x)).expect_err("refused");
    assert!(error.to_string().contains("call with_tokens"), "{error}");
    assert!(matches!(dpo(&PairLogps::new(&x, &half)), Err(Error::Kind { name: "policy_rejected", .. })));
    let inputs = PairLogps::new(&x, &x).with_reference(&x, &x);
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(ipo_loss(&inputs, beta), Err(Error::Param { name: "beta", .. })), "{beta}");
    }
    assert!(matches!(dpo_loss(&inputs, 0.1, 0.5), Err(Error::Param { name: "label_smoothing", .. })));
    let slic = PairLoss::SlicHf { delta: 1.0, lambda: -0.1 };
    assert!(matches!(slic.compute(&inputs), Err(Error::Param { name: "lambda", .. })));
    let slic = PairLoss::SlicHf { delta: 1.0, lambda: 0.1 };
    assert!(!slic.needs_reference() && slic.compute(&PairLogps::new(&x, &x)).is_ok());
}

#[test]
fn sppo_regresses_on_win_rates() {
    // h = (2.5, -1.25) on targets (0.8 - 0.5)/0.5 = 0.6 and (0.375 - 0.5)/0.5 = -0.25.
    let [chosen, rejected, ref_chosen, ref_rejected] =
        [-42.5f64, -51.25, -45.0, -50.0].map(|value| Tensor::from_slice(&[value]));
    let [best, worst] = [0.8f64, 0.375].map(|value| Tensor::from_slice(&[value]));
    let inputs = PairLogps::new(&chosen, &rejected).with_reference(&ref_chosen, &ref_rejected);
    let loss = PairLoss::Sppo { beta: 0.5 };
    let rated = floats(&loss.compute(&inputs.with_win_rates(&best, &worst)).expect("valid").per_pair)[0];
    assert_close("win rates", rated, 0.5 * (1.9f64.powi(2) + 1.0), 1e-12, 0.0);
    // Without: a hard label is the rates 1 and 0, as TRL's sppo_hard times one half.
    let hard = floats(&loss.compute(&inputs).expect("valid").per_pair)[0];
    assert_close("hard", hard, 0.5 * (1.5f64.powi(2) + 0.25f64.powi(2)), 1e-12, 0.0);
}

#[test]
fn names_and_keys_that_do_not_fit_are_refused() {
    let one = |key: &str| [(key.to_owned(), 0.1)].into();
    assert!(matches!(PairLoss::from_name("dppo", &one("beta")), Err(Error::UnknownLoss { .. })));
    assert!(matches!(PairLoss::from_name("ipo", &one("tau")), Err(Error::Keys { loss: "ipo", .. })));
    assert!(matches!(PairLoss::from_name("simpo", &one("beta")), Err(Error::Keys { loss: "simpo", .. })));
}
