//! Directions, margins and heads against plain arithmetic.

use tch::{Kind, Tensor};

use super::{assert_close, floats};
use crate::{Error, head_weights, legend_margins, reward_components, safety_direction};

fn table(rows: &[[f64; 3]]) -> Tensor {
    Tensor::from_slice(&rows.concat()).view([-1, 3])
}

#[test]
fn the_direction_of_safety_joins_the_means() {
    let (refusals, harmful) = (table(&[[1.0, 2.0, 0.0], [3.0, 2.0, 2.0]]), table(&[[0.0, 2.0, -1.0]]));
    // Means (2, 2, 1) and (0, 2, -1): the difference (2, 0, 2) has length √8.
    let found = floats(&safety_direction(&refusals, &harmful).expect("they differ"));
    let half = 0.5f64.sqrt();
    found.iter().zip([half, 0.0, half]).for_each(|(found, wanted)| assert_close("v", *found, wanted, 1e-12, 1e-15));
    let same = safety_direction(&refusals, &refusals).expect_err("refused");
    assert!(matches!(same, Error::Degenerate { .. }) && same.to_string().contains("the same mean state"), "{same}");
    assert!(matches!(safety_direction(&refusals, &harmful.narrow(1, 0, 2)), Err(Error::Shape { name: "harmful", .. })));
}

#[test]
fn legends_margins_are_z_scores() {
    let margins = legend_margins(&[5.0, 2.0, 1.0, 0.0], &[1.0, 2.0, 1.0, 4.0]);
    // Gaps 4, 0, 0, -4: mean 0, deviation √8.
    let wanted = [2f64.sqrt(), 0.0, 0.0, -2f64.sqrt()];
    margins.iter().zip(wanted).for_each(|(found, wanted)| assert_close("m", *found, wanted, 1e-12, 1e-15));
    assert_eq!(legend_margins(&[1.0, 2.0], &[0.0, 1.0]), [0.0, 0.0]);
}

/// Principal components by power iteration with deflation, in plain loops.
fn plain_components(rows: &[[f64; 3]], count: usize) -> Vec<([f64; 3], f64)> {
    let n = rows.len() as f64;
    let mean = [0, 1, 2].map(|j: usize| rows.iter().map(|row| row[j]).sum::<f64>() / n);
    let mut covariance = [[0.0; 3]; 3];
    for row in rows {
        for (i, line) in covariance.iter_mut().enumerate() {
            for (j, cell) in line.iter_mut().enumerate() {
                *cell += (row[i] - mean[i]) * (row[j] - mean[j]) / (n - 1.0);
            }
        }
    }
    let total: f64 = (0..3).map(|i| covariance[i][i]).sum();
    let mut found = Vec::new();
    for _ in 0..count {
        let (mut v, mut length) = ([0.6, 0.48, 0.64], 0.0);
        for _ in 0..5000 {
            let next = covariance.map(|line| line.iter().zip(&v).map(|(c, x)| c * x).sum::<f64>());
            length = next.iter().map(|x| x * x).sum::<f64>().sqrt();
            v = next.map(|x| x / length);
        }
        for (i, line) in covariance.iter_mut().enumerate() {
            line.iter_mut().enumerate().for_each(|(j, cell)| *cell -= length * v[i] * v[j]);
        }
        let side: f64 = v.iter().zip(&mean).map(|(x, m)| x * m).sum();
        found.push((v.map(|x| x * side.signum()), length / total));
    }
    found
}

#[test]
fn heads_are_principal_components_of_centred_differences() {
    let rows =
        [[2.0, 0.3, -1.0], [1.0, -0.4, 0.5], [-0.5, 1.2, 0.1], [3.1, 0.9, -0.2], [0.4, -1.1, 0.8], [1.7, 2.0, 0.3]];
    let (components, shares) = reward_components(&table(&rows), 3).expect("they vary");
    let mut explained = 0.0;
    for (i, (wanted, share)) in plain_components(&rows, 3).into_iter().enumerate() {
        let found = floats(&components.get(i as i64));
        found.iter().zip(wanted).for_each(|(found, wanted)| assert_close("v", *found, wanted, 1e-6, 1e-6));
        assert_close("share", shares.double_value(&[i as i64]), share, 1e-6, 1e-9);
        explained += share;
    }
    assert_close("all", explained, 1.0, 1e-9, 0.0);
    // A shift of all pairs turns heads at most, for D is centred.
    let (moved, _) = reward_components(&(table(&rows) + 5.0), 2).expect("they vary");
    let off = (moved.abs() - components.narrow(0, 0, 2).abs()).abs().max().double_value(&[]);
    assert!(off < 1e-9, "{off}");
    for count in [0, 4] {
        assert!(matches!(reward_components(&table(&rows), count), Err(Error::Param { name: "components", .. })));
    }
    assert!(matches!(reward_components(&table(&[rows[0]; 4]), 1), Err(Error::Degenerate { .. })));
}

#[test]
fn a_user_weighs_heads_by_their_accuracy_and_their_negatives() {
    let gaps = Tensor::from_slice(&[1.0, -2.0, 0.0, 3.0, -1.0, 0.5, 2.0, -0.1, 0.0, 0.3, 4.0, -1.0]).view([4, 3]);
    // Right: 4 of 4; 1 of 4; a tie twice, one right and one wrong.
    let accuracies = [1.0, 0.25, 0.5];
    let power = |accuracy: f64| (accuracy / 0.1f64).exp();
    let total: f64 = accuracies.iter().map(|a| power(*a) + power(1.0 - a)).sum();
    let found = floats(&head_weights(&gaps, 0.1).expect("pairs"));
    for (found, a) in found.into_iter().zip(accuracies) {
        assert_close("weight", found, (power(a) - power(1.0 - a)) / total, 1e-9, 1e-12);
    }
    assert!(head_weights(&gaps.narrow(0, 0, 0), 0.1).is_err());
    assert!(matches!(head_weights(&gaps, 0.0), Err(Error::Param { name: "temperature", .. })));
    let sharp = head_weights(&gaps, 1e-3).expect("pairs");
    assert_close("the best alone", sharp.sum(Kind::Double).double_value(&[]), 1.0, 1e-9, 0.0);
}
