//! Losses of reward models against the golden file and their formulas.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::{assert_close, floats, golden as pairs};
use crate::{Error, Margin, attribute_loss, bradley_terry_loss};

#[test]
fn golden_values_and_gradients() {
    let golden: Value = serde_json::from_str(include_str!("../../testdata/single.json")).expect("valid JSON");
    let (vectors, mut checked) = (pairs(), 0);
    for (name, entry) in golden["reward"].as_object().expect("an object") {
        for (vector, wanted) in entry["values"].as_object().expect("an object") {
            let score = |key: &str| {
                let value = vectors["vectors"][vector][key].as_f64().expect("a number");
                Tensor::from_slice(&[value]).set_requires_grad(true)
            };
            let (chosen, rejected) = (score("sc"), score("sr"));
            let number = |key: &str| entry["hyper"][key].as_f64().unwrap_or_default();
            let margins = Tensor::from_slice(&[number("m")]);
            let use_of = match name.as_str() {
                "rm_bt_margin" => Some((&margins, Margin::Subtract)),
                "rm_bt_scaled" => Some((&margins, Margin::Scale)),
                _ => None,
            };
            let loss = bradley_terry_loss(&chosen, &rejected, use_of, number("coef")).expect("valid");
            loss.sum(Kind::Double).backward();
            let found = [loss.double_value(&[0]), floats(&chosen.grad())[0], floats(&rejected.grad())[0]];
            for (found, key) in found.into_iter().zip(["loss", "d_sc", "d_sr"]) {
                let wanted = wanted[key].as_f64().expect("a number");
                assert_close(&format!("{name} on {vector}: {key}"), found, wanted, 1e-9, 1e-12);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 4 * 5 * 3);
}

#[test]
fn ratings_are_regressed_where_they_are_known() {
    let ratings = Tensor::from_slice(&[1.0f64, 2.0, 3.0, 4.0, 0.0, 0.0]).view([3, 2]).set_requires_grad(true);
    let labels = Tensor::from_slice(&[0.0f64, f64::NAN, 1.0, 1.0, f64::NAN, f64::NAN]).view([3, 2]);
    let loss = attribute_loss(&ratings, &labels).expect("valid");
    assert_eq!(floats(&loss), [1.0, (4.0 + 9.0) / 2.0, 0.0]);
    loss.sum(Kind::Double).backward();
    assert_eq!(floats(&ratings.grad().view([6])), [2.0, 0.0, 2.0, 3.0, 0.0, 0.0]);
    let error = attribute_loss(&ratings, &labels.view([2, 3])).expect_err("refused");
    assert!(matches!(error, Error::Shape { name: "labels", .. }));
    let (one, two) = (Tensor::from_slice(&[1.0]), Tensor::from_slice(&[1.0, 2.0]));
    assert!(matches!(bradley_terry_loss(&one, &two, None, 0.0), Err(Error::Shape { name: "rejected", .. })));
    assert!(matches!(bradley_terry_loss(&one, &one, None, -1.0), Err(Error::Param { name: "center", .. })));
}
