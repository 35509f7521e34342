//! List losses against the golden file, gaps in a list, and their edges.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::floats;
use crate::{
    Error, ListLogps, ListOutput, Result, d2o_loss, lipo_loss, list_mle_loss, pmpo_loss, pro_loss, raft_loss,
    sppo_list_loss,
};

type Loss<'a> = &'a dyn Fn(&ListLogps<'_>) -> Result<ListOutput>;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../testdata/tokens.json")).expect("valid JSON")
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

/// The golden list: its columns, and the win rates of its scores under a sigmoid.
fn column(name: &str) -> Vec<f64> {
    let list = &golden()["list_inputs"];
    if name != "win_rates" {
        return numbers(&list[name]);
    }
    let scores = numbers(&list["score"]);
    let rate = |s: &f64| scores.iter().map(|other| 1.0 / (1.0 + (other - s).exp())).sum::<f64>() / 4.0;
    scores.iter().map(rate).collect()
}

/// Computes a loss on rows of answers; `None` is a gap.
fn compute(loss: Loss<'_>, places: &[Option<usize>], labels: &str, kind: Kind) -> (f64, Vec<f64>) {
    let row = |name: &str| {
        let (column, junk) = (column(name), if name == "pi" { f64::NAN } else { 7.0 });
        let values: Vec<f64> = places.iter().map(|place| place.map_or(junk, |i| column[i])).collect();
        Tensor::from_slice(&values).unsqueeze(0).to_kind(kind)
    };
    let mask: Vec<f64> = places.iter().map(|place| f64::from(u8::from(place.is_some()))).collect();
    let mask = Tensor::from_slice(&mask).unsqueeze(0).to_kind(kind);
    let policy = row("pi").set_requires_grad(true);
    let (reference, tokens, labels) = (row("ref"), row("len"), row(labels));
    let inputs = ListLogps::new(&policy, &mask, &labels).with_reference(&reference).with_tokens(&tokens);
    let output = loss(&inputs).expect("valid inputs");
    assert_eq!(output.rewards.size(), policy.size());
    output.per_list.sum(kind).backward();
    let gradient = floats(&policy.grad().squeeze_dim(0));
    let mut by_answer = vec![0.0; 4];
    for (place, gradient) in places.iter().zip(gradient) {
        match place {
            Some(i) => by_answer[*i] = gradient,
            None => assert_eq!(gradient, 0.0),
        }
    }
    (output.per_list.double_value(&[0]), by_answer)
}

/// No answer is the reference's.
fn nobody(inputs: &ListLogps<'_>) -> Tensor {
    inputs.mask.zeros_like()
}

fn cases() -> [(&'static str, &'static str, Loss<'static>); 6] {
    [
        ("sppo_list", "win_rates", &|inputs| sppo_list_loss(inputs, 1e-3)),
        ("list_mle_dpo_pl", "psi", &|inputs| list_mle_loss(inputs, 0.05)),
        ("lipo_lambda_inv_discount", "psi", &|inputs| lipo_loss(inputs, 0.05)),
        ("pro", "score", &|inputs| pro_loss(inputs, 0.05)),
        ("d2o", "psi", &|inputs| d2o_loss(inputs, 0.1, 0.1)),
        ("pmpo", "psi", &|inputs| pmpo_loss(&inputs.with_from_reference(&nobody(inputs)), 0.5, 0.5)),
    ]
}

#[test]
fn list_losses_match_the_golden_values_in_any_order_and_with_gaps() {
    let orders: [&[Option<usize>]; 3] = [
        &[Some(0), Some(1), Some(2), Some(3)],
        &[Some(2), Some(0), Some(3), Some(1)],
        &[None, Some(3), Some(0), None, Some(2), Some(1), None],
    ];
    for (name, labels, loss) in cases() {
        let expected = &golden()["listwise"][name];
        for (kind, relative) in [(Kind::Double, 1e-9), (Kind::Float, 1e-4)] {
            for order in orders {
                let (value, gradient) = compute(loss, order, labels, kind);
                // The golden PMPO counts a constant divergence of 2 nats at beta 0.5.
                let constant = if name == "pmpo" { 1.0 } else { 0.0 };
                let wanted = expected["loss"].as_f64().expect("a number") - constant;
                super::assert_close(name, value, wanted, relative, relative * 1e-3);
                for (found, wanted) in gradient.iter().zip(numbers(&expected["d_pi"])) {
                    super::assert_close(name, *found, wanted, relative, relative * 1e-3);
                }
            }
        }
    }
}

#[test]
fn nothing_overflows_far_from_the_reference() {
    for (name, _, loss) in cases() {
        let policy = Tensor::from_slice(&[-10.0f32, -410.0, -210.0]).unsqueeze(0).set_requires_grad(true);
        let (reference, mask) = (policy.detach().full_like(-210.0), policy.detach().ones_like());
        let labels = Tensor::from_slice(&[0.1f32, 0.9, 0.5]).unsqueeze(0);
        let inputs = ListLogps::new(&policy, &mask, &labels).with_reference(&reference).with_tokens(&mask);
        loss(&inputs).expect("valid inputs").per_list.sum(Kind::Float).backward();
        assert!(floats(&policy.grad().squeeze_dim(0)).iter().all(|gradient| gradient.is_finite()), "{name}");
    }
}

#[test]
fn two_answers_are_a_pair() {
    // List-MLE of two answers is DPO; LiPO a multiple of it.
    let (value, gradient) = compute(&|inputs| list_mle_loss(inputs, 0.05), &[Some(0), Some(3)], "psi", Kind::Double);
    let delta = (-20.0 + 21.0) - (-30.0 + 26.0);
    super::assert_close("dpo", value, (1.0 + (-0.05f64 * delta).exp()).ln(), 1e-12, 0.0);
    let (_, lipo) = compute(&|inputs| lipo_loss(inputs, 0.05), &[Some(0), Some(3)], "psi", Kind::Double);
    super::assert_close("ratio", lipo[0] / gradient[0], lipo[3] / gradient[3], 1e-12, 0.0);
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let (wide, narrow) = (
        Tensor::ones([1, 3], (Kind::Double, tch::Device::Cpu)),
        Tensor::ones([1, 2], (Kind::Double, tch::Device::Cpu)),
    );
    assert!(matches!(
        sppo_list_loss(&ListLogps::new(&wide, &narrow, &wide).with_reference(&wide), 1.0),
        Err(Error::Shape { name: "mask", .. })
    ));
    let inputs = ListLogps::new(&wide, &wide, &wide);
    assert!(matches!(lipo_loss(&inputs, 1.0), Err(Error::Missing { setter: "with_reference", .. })));
    assert!(matches!(pro_loss(&inputs, 0.1), Err(Error::Missing { setter: "with_tokens", .. })));
    assert!(matches!(list_mle_loss(&inputs, 0.0), Err(Error::Param { name: "beta", .. })));
}

#[test]
fn pmpo_measures_its_divergence_on_the_references_answers() {
    // Four answers, best first; the third is the reference's: π −19, ref −20.5, so the divergence is −1.5.
    let row = |values: &[f64]| Tensor::from_slice(values).unsqueeze(0);
    let policy = row(&[-20.0, -23.5, -19.0]).set_requires_grad(true);
    let (reference, labels, mask) = (row(&[-21.0, -22.0, -20.5]), row(&[0.9, 0.5, 0.1]), row(&[1.0, 1.0, 1.0]));
    let given = row(&[0.0, 0.0, 1.0]);
    let inputs = ListLogps::new(&policy, &mask, &labels).with_reference(&reference).with_from_reference(&given);
    let loss = pmpo_loss(&inputs, 0.7, 2.0).expect("valid").per_list;
    // Of three the best one and the worst one count: −0.7·(−20) + 0.3·(−19) + 2·(−1.5).
    super::assert_close("value", loss.double_value(&[0]), 14.0 - 5.7 - 3.0, 1e-12, 0.0);
    loss.sum(Kind::Double).backward();
    assert_eq!(floats(&policy.grad().squeeze_dim(0)), [-0.7, 0.0, 0.3 - 2.0]);
    let missing = ListLogps::new(&policy, &mask, &labels).with_reference(&reference);
    assert!(matches!(pmpo_loss(&missing, 0.5, 0.5), Err(Error::Missing { setter: "with_from_reference", .. })));
    assert!(matches!(pmpo_loss(&inputs, 1.5, 0.5), Err(Error::Param { name: "alpha", .. })));
}

#[test]
fn raft_imitates_the_best_and_nothing_else() {
    let places: &[Option<usize>] = &[Some(2), None, Some(0), Some(3), Some(1)];
    // By psi the order is 0, 2, 1, 3.
    let (value, gradient) = compute(&|inputs| raft_loss(inputs, 1.0), places, "psi", Kind::Double);
    super::assert_close("best", value, 20.0 / 10.0, 1e-12, 0.0);
    assert_eq!(gradient, [-0.1, 0.0, 0.0, 0.0]);
    let (value, gradient) = compute(&|inputs| raft_loss(inputs, 2.0), places, "psi", Kind::Double);
    super::assert_close("two", value, 0.5 * (20.0 / 10.0 + 19.0 / 9.0), 1e-12, 0.0);
    assert_eq!((gradient[1], gradient[3]), (0.0, 0.0));
    let (all, _) = compute(&|inputs| raft_loss(inputs, 9.0), places, "psi", Kind::Double);
    super::assert_close("all", all, 0.25 * (2.0 + 23.5 / 12.0 + 19.0 / 9.0 + 2.0), 1e-12, 0.0);
}
