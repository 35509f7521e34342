//! PAL against plain arithmetic and central differences.

use tch::{Kind, Tensor};

use super::{assert_close, floats};
use crate::{Error, ideal_points, pal_loss};

/// Two prototypes in the plane, and the weights of two users, end to end.
const PEOPLE: [f64; 8] = [1.0, 0.5, -2.0, 1.5, 0.3, -0.4, 2.0, 0.1];
/// Three pairs, chosen then rejected.
const ANSWERS: [f64; 12] = [0.5, 1.0, -1.0, 0.0, 2.0, -0.5, 0.1, 0.2, 1.5, 1.5, -0.3, 0.9];
const OWNERS: [usize; 3] = [0, 1, 1];

fn plain(people: &[f64], answers: &[f64]) -> f64 {
    let point = |user: usize| {
        let [a, b] = [people[4 + 2 * user].exp(), people[5 + 2 * user].exp()];
        [0, 1].map(|d: usize| (a * people[d] + b * people[2 + d]) / (a + b))
    };
    let pair = |i: usize| {
        let far = |at: usize| {
            let u = point(OWNERS[i]);
            ((answers[at] - u[0]).powi(2) + (answers[at + 1] - u[1]).powi(2)).sqrt()
        };
        (-(far(6 + 2 * i) - far(2 * i))).exp().ln_1p()
    };
    (0..3).map(|i| (i + 1) as f64 * pair(i)).sum()
}

#[test]
fn value_and_gradients_are_those_of_plain_arithmetic() {
    let leaf = |values: &[f64], shape: [i64; 2]| Tensor::from_slice(values).view(shape).set_requires_grad(true);
    let (prototypes, weights) = (leaf(&PEOPLE[..4], [2, 2]), leaf(&PEOPLE[4..], [2, 2]));
    let (chosen, rejected) = (leaf(&ANSWERS[..6], [3, 2]), leaf(&ANSWERS[6..], [3, 2]));
    let points =
        ideal_points(&weights, &prototypes).expect("it fits").index_select(0, &Tensor::from_slice(&[0i64, 1, 1]));
    let loss = pal_loss(&chosen, &rejected, &points).expect("it fits");
    let total = (loss * Tensor::from_slice(&[1.0, 2.0, 3.0])).sum(Kind::Double);
    assert_close("loss", total.double_value(&[]), plain(&PEOPLE, &ANSWERS), 1e-9, 0.0);
    total.backward();
    let gradient = |leaf: &Tensor| floats(&leaf.grad().view([-1]));
    let people = [gradient(&prototypes), gradient(&weights)].concat();
    let answers = [gradient(&chosen), gradient(&rejected)].concat();
    let slope = |value: &dyn Fn(f64) -> f64| (value(1e-6) - value(-1e-6)) / 2e-6;
    for (i, found) in people.into_iter().enumerate() {
        let value = |step: f64| {
            let mut moved = PEOPLE;
            moved[i] += step;
            plain(&moved, &ANSWERS)
        };
        assert_close("people", found, slope(&value), 1e-6, 1e-8);
    }
    for (i, found) in answers.into_iter().enumerate() {
        let value = |step: f64| {
            let mut moved = ANSWERS;
            moved[i] += step;
            plain(&PEOPLE, &moved)
        };
        assert_close("answers", found, slope(&value), 1e-6, 1e-8);
    }
}

#[test]
fn an_answer_on_the_point_and_one_far_away_are_finite() {
    let point = Tensor::from_slice(&[1.0f32, -2.0]).view([1, 2]);
    let far = Tensor::from_slice(&[400.0f32, -2.0]).view([1, 2]);
    for (chosen, rejected) in [(&point, &far), (&far, &point)] {
        let leaf = chosen.copy().set_requires_grad(true);
        let loss = pal_loss(&leaf, rejected, &point).expect("it fits");
        loss.sum(Kind::Float).backward();
        let all = [floats(&loss), floats(&leaf.grad().view([-1]))].concat();
        assert!(all.iter().all(|value| value.is_finite()), "{all:?}");
    }
    let error = ideal_points(&Tensor::from_slice(&[0.0, 0.0, 0.0]).view([1, 3]), &point).expect_err("refused");
    assert!(matches!(error, Error::Shape { name: "weights", .. }));
    assert!(matches!(pal_loss(&point, &far, &point.view([2, 1])), Err(Error::Shape { name: "points", .. })));
}
