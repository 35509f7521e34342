//! Reward models behind their trait: values, failures and time.

use std::{sync::Arc, time::Duration};

use joust_core::{JudgementStatus, JudgementValue, Prompt};
use tokio::time::Instant;

use super::{assert_no_stand_in, call, item, preference, provenance, scores};
use crate::{Ask, CallContext, Judge, RewardModel, Scorer};

/// Scores by a function of the text.
struct Fake<F>(F);

impl<F: Fn(Vec<String>) -> Result<Vec<Option<f64>>, String> + Send + Sync> Scorer for Fake<F> {
    fn score(&self, texts: Vec<(Prompt, String)>) -> Result<Vec<Option<f64>>, String> {
        (self.0)(texts.into_iter().map(|(_, text)| text).collect())
    }
}

fn model<F>(scale: f64, score: F) -> RewardModel
where
    F: Fn(Vec<String>) -> Result<Vec<Option<f64>>, String> + Send + Sync + 'static,
{
    RewardModel::new(provenance(), Arc::new(Fake(score)), scale)
}

#[tokio::test]
async fn scores_reach_the_items_they_belong_to() {
    let lengths = |texts: Vec<String>| Ok(texts.iter().map(|text| Some(text.len() as f64)).collect());
    let items = [
        item(1, Ask::Compare, &["aaa", "a"]),
        item(2, Ask::Compare, &["only one"]),
        item(3, Ask::Score, &["", "aa", "aaaa"]),
    ];
    let answers = model(2.0, lengths).judge(&items, &call()).await;
    assert!((preference(&answers[0]) - 1.0 / (1.0 + (-4.0f64).exp())).abs() < 1e-15);
    assert_eq!(answers[1].status, JudgementStatus::InvalidInput);
    assert_eq!(scores(&answers[2]), [0.0, 2.0, 4.0]);
    answers.iter().for_each(assert_no_stand_in);
}

#[tokio::test]
async fn too_long_and_not_finite_fail_alone() {
    let score = |texts: Vec<String>| {
        let of = |text: &String| match text.as_str() {
            "long" => None,
            "nan" => Some(f64::NAN),
            _ => Some(1.0),
        };
        Ok(texts.iter().map(of).collect())
    };
    let items =
        [item(1, Ask::Score, &["a", "long"]), item(2, Ask::Compare, &["nan", "a"]), item(3, Ask::Compare, &["a", "a"])];
    let answers = model(1.0, score).judge(&items, &call()).await;
    answers.iter().for_each(assert_no_stand_in);
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [JudgementStatus::InvalidInput, JudgementStatus::ParseFailed, JudgementStatus::Ok]);
    assert!(answers[0].detail.as_deref().is_some_and(|detail| detail.starts_with("candidate 1")));
    assert_eq!(answers[2].value, Some(JudgementValue::Preference(0.5)));
}

#[tokio::test]
async fn a_broken_model_is_unavailable() {
    let items = [item(1, Ask::Score, &["a", "b"])];
    for broken in [
        model(1.0, |_| Err("out of memory".to_owned())),
        model(1.0, |_| Ok(vec![Some(1.0)])),
        model(1.0, |_| panic!("a bug in the model")),
    ] {
        let answer = &broken.judge(&items, &call()).await[0];
        assert_eq!(answer.status, JudgementStatus::Unavailable);
        assert_no_stand_in(answer);
    }
}

#[tokio::test]
async fn a_slow_model_is_late() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = model(1.0, move |texts| {
        // Ends when the test lets go.
        let _ = held.lock().expect("not poisoned").recv();
        Ok(texts.iter().map(|_| Some(0.0)).collect())
    });
    let hurried = CallContext::new(1, Instant::now() + Duration::from_millis(50));
    let answer = &slow.judge(&[item(1, Ask::Score, &["a"])], &hurried).await[0];
    assert_eq!(answer.status, JudgementStatus::Deadline);
    assert_no_stand_in(answer);
    drop(release);
}
