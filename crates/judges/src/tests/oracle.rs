//! The oracle against what was planted, and its error estimates against their own intervals.

use joust_config::judge::OracleJudge;
use joust_core::{JudgementStatus, JudgementValue};

use super::{assert_no_stand_in, call, item, no_retry, oracle_config, preference, provenance, scores};
use crate::{Ask, CallContext, Judge, JudgeItem, Oracle};

fn oracle(change: impl FnOnce(&mut OracleJudge)) -> Oracle {
    let mut config = OracleJudge { ask_again: no_retry(), ..oracle_config() };
    change(&mut config);
    Oracle::new(provenance(), &config).expect("valid settings")
}

/// A text of `happy` happy words and `plain` plain ones.
fn text(happy: usize, plain: usize) -> String {
    [vec!["happy"; happy], vec!["word"; plain]].concat().join(" ")
}

/// Comparisons whose utilities and lengths vary independently.
fn comparisons(n: u64) -> Vec<JudgeItem> {
    let varied = |n: u64| (n % 3, n / 3 % 4, n / 12 % 7, n / 84 % 5);
    (0..n)
        .map(|n| {
            let (a, b, c, d) = varied(n);
            item(n, Ask::Compare, &[&text(a as usize, c as usize), &text(b as usize, d as usize)])
        })
        .collect()
}

/// Mean and half-width of its 95 % interval.
fn mean_interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 1.96 * (variance / n).sqrt())
}

#[tokio::test]
async fn without_errors_preferences_follow_the_utility() {
    let judge = oracle(|config| config.scale = 2.0);
    let answers = judge.judge(&[item(1, Ask::Compare, &["happy happy", "sad"])], &call()).await;
    assert!((preference(&answers[0]) - 1.0 / (1.0 + (-6.0f64).exp())).abs() < 1e-15);
    let items = [item(2, Ask::Score, &["a happy end", "sad sad", ""]), item(3, Ask::Rank, &["happy", "sad", "dull"])];
    let answers = judge.judge(&items, &call()).await;
    assert_eq!(scores(&answers[0]), [1.0, -2.0, 0.0]);
    let Some(JudgementValue::Matrix(matrix)) = &answers[1].value else { panic!("expected a matrix") };
    for i in 0..3 {
        assert_eq!(matrix[4 * i], 0.5);
        for j in 0..3 {
            assert!((matrix[3 * i + j] + matrix[3 * j + i] - 1.0).abs() < 1e-15);
        }
    }
}

#[test]
fn the_planted_position_bias_is_recovered_and_cancelled() {
    let planted = 0.8;
    let judge = oracle(|config| (config.position_bias, config.noise) = (planted, 1.0));
    let items = comparisons(4000);
    let asked: Vec<_> = items.iter().map(|item| judge.ask_both_orders(item, (0, 1), &call())).collect();
    let (gap, width) = mean_interval(&asked.iter().map(|pooled| pooled.position_gap).collect::<Vec<_>>());
    assert!((gap - planted).abs() < width, "{gap} ± {width}");
    let residual = |(item, pooled): (&JudgeItem, &crate::Pooled)| {
        pooled.logit - (judge.utility(&item.candidates[0]) - judge.utility(&item.candidates[1]))
    };
    let (rest, width) = mean_interval(&items.iter().zip(&asked).map(residual).collect::<Vec<_>>());
    assert!(rest.abs() < width, "{rest} ± {width}");
    // Two independent unit normals, averaged: a half-width of 1.96·√(1/2)/√4000.
    assert!((width - 0.0219).abs() < 0.001, "{width}");
}

#[tokio::test]
async fn one_order_keeps_the_position_bias() {
    let judge = oracle(|config| (config.position_bias, config.both_orders) = (0.8, false));
    let items = [item(1, Ask::Compare, &["same", "same"]), item(2, Ask::Compare, &["happy", "dull"])];
    let answers = judge.judge(&items, &call()).await;
    for (answer, logit) in answers.iter().zip([0.8f64, 1.8]) {
        assert!((preference(answer) - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-15);
    }
}

#[tokio::test]
async fn the_planted_length_slope_is_recovered() {
    let planted = 0.15;
    let judge = oracle(|config| (config.length_slope, config.noise) = (planted, 0.7));
    let items = comparisons(4000);
    let answers = judge.judge(&items, &call()).await;
    let words = |item: &JudgeItem, i: usize| item.candidates[i].text.split_whitespace().count() as f64;
    let points: Vec<(f64, f64)> = items
        .iter()
        .zip(&answers)
        .map(|(item, answer)| {
            let p = preference(answer);
            let utility = judge.utility(&item.candidates[0]) - judge.utility(&item.candidates[1]);
            (words(item, 0) - words(item, 1), (p / (1.0 - p)).ln() - utility)
        })
        .collect();
    // Least squares with an intercept, and the usual interval of its slope.
    let n = points.len() as f64;
    let (mean_x, mean_y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let sxx: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let slope = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / sxx;
    let residual: f64 = points.iter().map(|p| (p.1 - mean_y - slope * (p.0 - mean_x)).powi(2)).sum();
    let width = 1.96 * (residual / (n - 2.0) / sxx).sqrt();
    assert!((slope - planted).abs() < width, "{slope} ± {width}");
    assert!(width < 0.01, "{width}");
}

#[tokio::test]
async fn the_planted_failure_rate_is_recovered_and_failures_carry_nothing() {
    let planted = 0.2;
    let judge = oracle(|config| config.failure_rate = planted);
    let answers = judge.judge(&comparisons(4000), &call()).await;
    answers.iter().for_each(assert_no_stand_in);
    let failed: Vec<f64> = answers.iter().map(|a| f64::from(u8::from(a.status != JudgementStatus::Ok))).collect();
    let (rate, width) = mean_interval(&failed);
    assert!((rate - planted).abs() < width, "{rate} ± {width}");
    let unavailable = answers.iter().filter(|a| a.status == JudgementStatus::Unavailable).count();
    let unparsable = answers.iter().filter(|a| a.status == JudgementStatus::ParseFailed).count();
    assert!(unavailable > 300 && unparsable > 300, "{unavailable} and {unparsable} of about 800");
    for rate in [0.0, 1.0] {
        let answers = oracle(|config| config.failure_rate = rate).judge(&comparisons(200), &call()).await;
        assert!(answers.iter().all(|answer| (answer.status == JudgementStatus::Ok) == (rate == 0.0)));
    }
}

#[tokio::test]
async fn the_tie_band_calls_ties() {
    // σ(0.4) = 0.599 and σ(1) = 0.731.
    let judge = oracle(|config| (config.tie_band, config.length_weight) = (0.1, 0.4));
    let items = [item(1, Ask::Compare, &["a b", "a"]), item(2, Ask::Compare, &["happy", "a"])];
    let answers = judge.judge(&items, &call()).await;
    assert_eq!(preference(&answers[0]), 0.5);
    assert!((preference(&answers[1]) - 0.731_058_578_630_004_9).abs() < 1e-12);
}

#[tokio::test]
async fn answers_depend_on_the_question_and_the_seeds_only() {
    let noisy = |seed| oracle(|config| (config.noise, config.failure_rate, config.seed) = (1.0, 0.3, seed));
    let items = comparisons(64);
    let whole = noisy(0).judge(&items, &call()).await;
    let mut one_by_one = Vec::new();
    for item in items.iter().rev() {
        one_by_one.insert(0, noisy(0).judge(std::slice::from_ref(item), &call()).await.remove(0));
    }
    assert_eq!(whole, one_by_one);
    assert_ne!(whole, noisy(1).judge(&items, &call()).await);
    assert_ne!(whole, noisy(0).judge(&items, &CallContext { seed: 8, ..call() }).await);
    assert_ne!(whole, noisy(0).judge(&items, &CallContext { attempt: 1, ..call() }).await);
}
