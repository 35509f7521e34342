//! SPO: the head against plain arithmetic and central differences, the identity with DPO, and the edges.

use tch::{Kind, Tensor};

use super::{assert_close, floats};
use crate::{Error, PairLogps, degree_losses, dpo_loss, first_degree_head, spo_loss};

fn waves(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    (Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 1.7 + phase).sin().view(shape)
}

/// The cross-entropy by plain loops.
fn plain(states: &[Vec<f64>], weight: &[Vec<f64>], bias: &[f64], degrees: &[i64]) -> Vec<f64> {
    let one = |(state, degree): (&Vec<f64>, &i64)| {
        let logit = |c: usize| bias[c] + weight[c].iter().zip(state).map(|(w, h)| w * h).sum::<f64>();
        let total: f64 = (0..bias.len()).map(|c| logit(c).exp()).sum();
        total.ln() - logit(*degree as usize)
    };
    states.iter().zip(degrees).map(one).collect()
}

fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    Vec::<Vec<f64>>::try_from(tensor).expect("a matrix")
}

#[test]
fn the_head_is_plain_cross_entropy() {
    let (states, weight, bias) = (waves(&[5, 4], 0.0), waves(&[3, 4], 1.0), waves(&[3], 2.0));
    let degrees = [0, 2, 1, 1, 0];
    let found = degree_losses(&states, [&weight, &bias], &Tensor::from_slice(&degrees)).expect("fits");
    let expected = plain(&rows(&states), &rows(&weight), &floats(&bias), &degrees);
    floats(&found)
        .into_iter()
        .zip(expected)
        .for_each(|(found, wanted)| assert_close("nats", found, wanted, 1e-12, 0.0));
}

#[test]
fn its_gradients_match_central_differences() {
    let leaves = [waves(&[2, 3], 0.3), waves(&[4, 3], 1.3), waves(&[4], 2.3)].map(|leaf| leaf.set_requires_grad(true));
    let degrees = Tensor::from_slice(&[3i64, 0]);
    let value = |leaves: [&Tensor; 3]| {
        degree_losses(leaves[0], [leaves[1], leaves[2]], &degrees).expect("fits").sum(Kind::Double)
    };
    value(leaves.each_ref()).backward();
    let step = 1e-6;
    for (index, leaf) in leaves.iter().enumerate() {
        let gradient = floats(&leaf.grad().flatten(0, -1));
        for (i, exact) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let shift = Tensor::zeros([leaf.numel() as i64], (Kind::Double, tch::Device::Cpu));
                let _ = shift.narrow(0, i as i64, 1).fill_(by);
                let shifted = leaf.detach() + shift.view_as(leaf);
                let mut all = leaves.each_ref().map(Tensor::detach);
                all[index] = shifted;
                value(all.each_ref()).double_value(&[])
            };
            assert_close("gradient", exact, (moved(step) - moved(-step)) / (2.0 * step), 1e-6, 1e-8);
        }
    }
}

#[test]
fn the_first_head_finds_every_degree_as_likely() {
    let head = first_degree_head(4, 3);
    let states = waves(&[2, 3], 0.0);
    let found = degree_losses(&states, [&head[0].1, &head[1].1], &Tensor::from_slice(&[0i64, 4])).expect("fits");
    floats(&found).into_iter().for_each(|nats| assert_close("nats", nats, 5f64.ln(), 1e-6, 0.0));
}

#[test]
fn it_is_dpo_beside_the_weighted_head() {
    let [chosen, rejected] = [[-3.0f64, -4.0], [-5.0, -3.5]].map(|v| Tensor::from_slice(&v));
    let [held, other] = [[-3.5f64, -2.0], [-4.0, -6.0]].map(|v| Tensor::from_slice(&v));
    let (p, terms) = (Tensor::from_slice(&[0.8, 0.3]), Tensor::from_slice(&[1.25, 0.5]));
    let inputs = PairLogps::new(&chosen, &rejected).with_reference(&held, &other).with_p(&p).with_degree_terms(&terms);
    let dpo = floats(&dpo_loss(&inputs, 0.1, 0.0).expect("valid").per_pair);
    let spo = floats(&spo_loss(&inputs, 0.1, 0.2, 3.0).expect("valid").per_pair);
    for ((dpo, spo), term) in dpo.into_iter().zip(spo).zip([1.25, 0.5]) {
        assert_close("spo", spo, dpo + 0.2 * term, 1e-12, 0.0);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let (states, weight, bias) = (waves(&[2, 3], 0.0), waves(&[4, 2], 0.0), waves(&[4], 0.0));
    let error = degree_losses(&states, [&weight, &bias], &Tensor::from_slice(&[0i64, 1])).expect_err("too narrow");
    assert!(matches!(error, Error::Shape { name: "weight", .. }), "{error}");
    let sums = Tensor::from_slice(&[-1.0f64]);
    let inputs = PairLogps::new(&sums, &sums).with_reference(&sums, &sums);
    assert!(matches!(spo_loss(&inputs, 0.1, 0.1, 3.0), Err(Error::Missing { loss: "spo", .. })));
    assert!(matches!(spo_loss(&inputs, 0.1, 0.1, 1.5), Err(Error::Param { .. })));
    assert!(matches!(spo_loss(&inputs, 0.1, -0.1, 3.0), Err(Error::Param { .. })));
}
