//! Losses on single answers, and weights, against the golden file, central differences and an exact optimum.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::{assert_close, floats, golden as pairs};
use crate::{
    Error, PairLogps, SingleLogps, SingleLoss, bco_unpaired_loss, dpo_loss, dro_loss, dro_value_loss, kto_loss,
    sppo_loss,
};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../testdata/single.json")).expect("valid JSON")
}

fn scalar(value: f64) -> Tensor {
    Tensor::from_slice(&[value])
}

/// Computes a golden pair loss with its two gradients on a vector.
fn on_pair(name: &str, v: &Value) -> [f64; 3] {
    let number = |key: &str| scalar(v[key].as_f64().expect("a number"));
    let [chosen, rejected] = ["pc", "pr"].map(|key| number(key).set_requires_grad(true));
    let [ref_chosen, ref_rejected] = ["rc", "rr"].map(number);
    let pair = PairLogps::new(&chosen, &rejected).with_reference(&ref_chosen, &ref_rejected);
    let policy = Tensor::cat(&[&chosen, &rejected], 0);
    let reference = Tensor::cat(&[&ref_chosen, &ref_rejected], 0);
    let labels = Tensor::from_slice(&[1.0f64, 0.0]);
    let single = SingleLogps::new(&policy, &reference, &labels);
    let loss = match name {
        "kto_pairbatch" => kto_loss(&single.with_baseline(0.5), 0.1, 1.0, 1.0).expect("valid").per_answer / 2.0,
        "bco_unpaired" => bco_unpaired_loss(&single.with_baseline(0.3), 0.1).expect("valid").per_answer / 2.0,
        "sppo_hard_trl" => 2.0 * sppo_loss(&pair, 1e-3).expect("valid").per_pair,
        _ => {
            let weight = (number("sc") - number("sr")).sigmoid();
            dpo_loss(&pair.with_weight(&weight), 0.1, 0.0).expect("valid").per_pair
        }
    };
    let loss = loss.sum(Kind::Double);
    loss.backward();
    [loss, chosen.grad(), rejected.grad()].map(|value| value.sum(Kind::Double).double_value(&[]))
}

#[test]
fn golden_values_and_gradients() {
    let (golden, vectors) = (golden(), pairs());
    let mut checked = 0;
    let cringe = |name: &str| name == "pairwise_cringe_gate"; // see tests/cringe.rs
    for (name, entry) in golden["losses"].as_object().expect("an object").iter().filter(|(name, _)| !cringe(name)) {
        for (vector, wanted) in entry["values"].as_object().expect("an object") {
            let found = on_pair(name, &vectors["vectors"][vector]);
            for (found, key) in found.into_iter().zip(["loss", "d_pc", "d_pr"]) {
                let wanted = wanted[key].as_f64().expect("a number");
                assert_close(&format!("{name} on {vector}: {key}"), found, wanted, 1e-9, 1e-12);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 4 * 5 * 3);
}

#[test]
fn dro_matches_the_golden_values_of_policy_and_critic() {
    let golden = golden();
    let [r, v, pi, reference] =
        ["r", "V", "pi", "ref"].map(|key| scalar(golden["dro_v"]["inputs"][key].as_f64().expect("a number")));
    for (name, tau, scaled) in [("dro_v", 1.0, "d_pi"), ("dro_v_tau05", 0.5, "d_pi_rescaled")] {
        let wanted = |key: &str| golden[name][key].as_f64().expect("a number");
        let [policy, values] = [&pi, &v].map(|value| value.detach().copy().set_requires_grad(true));
        let inputs = SingleLogps::new(&policy, &reference, &r).with_values(&values);
        let loss = dro_loss(&inputs, tau).expect("valid").per_answer;
        assert_close("policy loss", tau * loss.double_value(&[0]), wanted("loss"), 1e-9, 0.0);
        loss.sum(Kind::Double).backward();
        assert_close(scaled, floats(&policy.grad())[0], wanted(scaled), 1e-9, 0.0);
        assert!(!values.grad().defined(), "the policy's loss does not move the critic");
        let loss = dro_value_loss(&inputs, &values, tau).expect("valid");
        assert_close("critic loss", loss.double_value(&[0]), wanted("loss"), 1e-9, 0.0);
        loss.sum(Kind::Double).backward();
        assert_close("d_V", floats(&values.grad())[0], wanted("d_V"), 1e-9, 0.0);
        assert_close(scaled, floats(&policy.grad())[0], wanted(scaled), 1e-9, 0.0);
    }
}

#[test]
fn dro_stops_at_the_tilted_reference() {
    // ref (.5, .3, .2), rewards (1, 0, 2), τ = 0.7: V* = τ log Σ ref e^{r/τ} and π* ∝ ref e^{r/τ}.
    let (reference, rewards) = (Tensor::from_slice(&[0.5f64, 0.3, 0.2]).log(), Tensor::from_slice(&[1.0f64, 0.0, 2.0]));
    let policy = Tensor::from_slice(&[0.355_506_994_8f64, 0.051_118_571_9, 0.593_374_433_3]).log();
    let value = rewards.full_like(1.238_744_214_2);
    let inputs = SingleLogps::new(&policy, &reference, &rewards).with_values(&value);
    let loss = dro_loss(&inputs, 0.7).expect("valid").per_answer;
    assert!(floats(&loss).iter().all(|loss| *loss < 1e-16), "{loss:?}");
}

#[test]
fn gradients_match_central_differences_and_stay_finite() {
    let losses = [
        SingleLoss::Kto { beta: 0.3, desirable_weight: 1.2, undesirable_weight: 0.7 },
        SingleLoss::BcoUnpaired { beta: 0.3 },
        SingleLoss::Dro { beta: 0.3 },
    ];
    let (reference, labels) = (Tensor::from_slice(&[-12.0f64, -9.0, -30.0]), Tensor::from_slice(&[1.0f64, 0.0, 0.5]));
    let values = Tensor::from_slice(&[0.2f64, -0.4, 0.1]);
    for loss in losses {
        let compute = |policy: &Tensor| {
            let inputs = SingleLogps::new(policy, &reference, &labels).with_baseline(0.4).with_values(&values);
            loss.compute(&inputs).expect("valid").per_answer
        };
        let at = [-10.0f64, -11.0, -28.0];
        let policy = Tensor::from_slice(&at).set_requires_grad(true);
        compute(&policy).sum(Kind::Double).backward();
        let moved = |by: f64| floats(&compute(&Tensor::from_slice(&at.map(|value| value + by))));
        for ((up, down), exact) in moved(1e-5).iter().zip(moved(-1e-5)).zip(floats(&policy.grad())) {
            assert_close(loss.name(), exact, (up - down) / 2e-5, 1e-6, 1e-8);
        }
        let far = Tensor::from_slice(&[-212.0f32, 191.0, 170.0]).set_requires_grad(true);
        let [reference, labels, values] = [&reference, &labels, &values].map(|value| value.to_kind(Kind::Float));
        let inputs = SingleLogps::new(&far, &reference, &labels).with_values(&values);
        loss.compute(&inputs).expect("valid").per_answer.sum(Kind::Float).backward();
        assert!(floats(&far.grad()).iter().all(|gradient| gradient.is_finite()), "{}", loss.name());
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let (three, two) = (Tensor::from_slice(&[0.0f64; 3]), Tensor::from_slice(&[0.0f64; 2]));
    let error = kto_loss(&SingleLogps::new(&three, &two, &three), 0.1, 1.0, 1.0).expect_err("refused");
    assert_eq!(error.to_string(), "expected reference of shape [3], got [2]");
    let inputs = SingleLogps::new(&three, &three, &three);
    assert!(matches!(kto_loss(&inputs, 0.1, -1.0, 1.0), Err(Error::Param { name: "desirable_weight", .. })));
    assert!(matches!(bco_unpaired_loss(&inputs, 0.0), Err(Error::Param { name: "beta", .. })));
    assert!(matches!(dro_loss(&inputs, 1.0), Err(Error::Missing { setter: "with_values", .. })));
    let half = three.to_kind(Kind::BFloat16);
    let error = bco_unpaired_loss(&SingleLogps::new(&half, &three, &three), 0.1);
    assert!(matches!(error, Err(Error::Kind { name: "policy", .. })));
}
