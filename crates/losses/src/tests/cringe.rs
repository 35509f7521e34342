//! Pairwise Cringe: its token term and gate against the golden file, a plain second implementation, and what is held fixed.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::{assert_close, floats};
use crate::{Error, PairLogps, cringe_loss, cringe_tokens};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../testdata/single.json")).expect("valid JSON")
}

#[test]
fn the_token_term_matches_the_golden_value_and_gradient() {
    let golden = &golden()["cringe_token"];
    let numbers = |key: &str| -> Vec<f64> {
        golden[key].as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
    };
    let logits = Tensor::from_slice(&numbers("logits")).unsqueeze(0).set_requires_grad(true);
    let target = Tensor::from_slice(&[golden["negative"].as_i64().expect("an id")]);
    let terms = cringe_tokens(&logits, &target, 1);
    assert_close("term", terms.double_value(&[0]), golden["loss"].as_f64().expect("a number"), 1e-9, 0.0);
    terms.sum(Kind::Double).backward();
    for (found, wanted) in floats(&logits.grad().squeeze_dim(0)).into_iter().zip(numbers("d_logits")) {
        assert_close("gradient", found, wanted, 1e-9, 1e-12);
    }
}

#[test]
fn several_tokens_are_averaged_by_their_probability() {
    let row = [2.0f64, 1.0, 0.5, -1.0];
    let logits = Tensor::from_slice(&row).unsqueeze(0);
    let found = cringe_tokens(&logits, &Tensor::from_slice(&[0i64]), 2).double_value(&[0]);
    let weight = |s: f64| s.exp() / (1f64.exp() + 0.5f64.exp());
    let cost = |s: f64| (2.0 - s).exp().ln_1p();
    assert_close("mean", found, weight(1.0) * cost(1.0) + weight(0.5) * cost(0.5), 1e-12, 0.0);
}

#[test]
fn the_gate_weighs_and_is_held_fixed() {
    let scalar = |value: f64| Tensor::from_slice(&[value]);
    for (name, vector) in [("A_typical", [-42.5, -51.25]), ("B_displaced", [-120.0, -130.5]), ("C_wrong", [-8.0, -5.5])]
    {
        // The golden gate stands on a binary loss of 4: one from the chosen answer's 18 tokens, three from the terms.
        let [chosen, rejected] = vector.map(|value| scalar(value).set_requires_grad(true));
        let (tokens, terms) = (scalar(-vector[0]), scalar(6.0).set_requires_grad(true));
        let inputs = PairLogps::new(&chosen, &rejected).with_tokens(&tokens, &tokens).with_token_terms(&terms);
        let loss = cringe_loss(&inputs, 0.5, 10.0, -10.0, 1.0).expect("valid").per_pair;
        let wanted = golden()["losses"]["pairwise_cringe_gate"]["values"][name]["loss"].as_f64().expect("a number");
        assert_close(name, loss.double_value(&[0]), wanted, 1e-9, 0.0);
        loss.sum(Kind::Double).backward();
        let gate = wanted / 4.0;
        assert_close("chosen", floats(&chosen.grad())[0], gate / vector[0], 1e-9, 0.0);
        assert!(!rejected.grad().defined(), "the rejected answer is reached through its logits alone");
        assert_close("terms", floats(&terms.grad())[0], 0.5 * gate, 1e-9, 0.0);
    }
    let x = scalar(-1.0);
    let error = cringe_loss(&PairLogps::new(&x, &x).with_tokens(&x, &x), 0.5, 10.0, -10.0, 1.0).expect_err("refused");
    assert!(matches!(error, Error::Missing { setter: "with_token_terms", .. }));
    let error = cringe_loss(&PairLogps::new(&x, &x), 0.5, 10.0, -10.0, 1.5).expect_err("refused");
    assert!(matches!(error, Error::Param { name: "k", .. }));
}
