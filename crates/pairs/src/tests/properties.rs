//! Properties of pairing over arbitrary answers, scores and rules.

use std::collections::BTreeSet;

use joust_core::{DropReason, Finish, JudgementValue, Rollout, Target};
use proptest::prelude::*;

use super::{completion, judged, rollout, scores};
use crate::{Filter, Label, PairingRules, Select, outcome_of};

/// Few tokens and few scores, so that ties and identical answers are common.
fn answers() -> impl Strategy<Value = (Rollout, Vec<f64>)> {
    let answer = (prop::collection::vec(0u32..2, 1..3), any::<bool>(), -2i8..3);
    prop::collection::vec(answer, 0..6).prop_map(|answers| {
        let of = |(i, (tokens, ended, _)): (usize, &(Vec<u32>, bool, i8))| {
            completion(i as u32, tokens, if *ended { Finish::Eos } else { Finish::Length })
        };
        let completions = answers.iter().enumerate().map(of).collect();
        (rollout(completions), answers.iter().map(|answer| f64::from(answer.2)).collect())
    })
}

fn any_rules() -> impl Strategy<Value = PairingRules> {
    let select = prop::sample::select(vec![
        Select::BestWorst,
        Select::MaxRandom,
        Select::AllPairs,
        Select::Rejection,
        Select::SweetSpot,
        Select::Ranked,
        Select::MaxMax,
        Select::Curriculum,
    ]);
    let filters = prop::sample::subsequence(vec![Filter::Ties, Filter::Identical, Filter::Truncated], 0..=3);
    let label = prop_oneof![Just(Label::Hard), Just(Label::Soft)];
    (select, filters, label, 0u8..3, any::<u64>()).prop_map(|(select, filters, label, penalty, seed)| PairingRules {
        rationale: None,
        select,
        filters,
        label,
        missing_eos_penalty: f64::from(penalty),
        score_scale: 0.7,
        threshold: 0.6,
        positions: 4,
        seed,
    })
}

proptest! {
    #[test]
    fn every_pair_is_an_example_or_a_counted_reason((rollout, given) in answers(), rules in any_rules()) {
        let outcome = outcome_of(&rollout, &scores(&given), &rules);
        let k = rollout.completions.len();
        prop_assert_eq!(outcome.dropped.is_some(), outcome.examples.is_empty());
        let wanted = match rules.select {
            Select::AllPairs | Select::Rejection => k * k.saturating_sub(1) / 2,
            Select::Ranked => k / 2,
            _ => 1,
        };
        if outcome.dropped.is_none() {
            let left_out: u32 = outcome.left_out.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(outcome.examples.len() + left_out as usize, wanted);
        }
        let ids: BTreeSet<_> = outcome.examples.iter().map(|example| example.id).collect();
        prop_assert_eq!(ids.len(), outcome.examples.len());
        prop_assert_eq!(outcome, outcome_of(&rollout, &scores(&given), &rules));
    }

    #[test]
    fn examples_keep_the_rules((rollout, given) in answers(), rules in any_rules()) {
        let outcome = outcome_of(&rollout, &scores(&given), &rules);
        let hard = rules.label == Label::Hard;
        for example in &outcome.examples {
            let [chosen, rejected] = &example.answers[..] else { panic!("a pair has two answers") };
            let (best, worst) = (chosen.score.expect("scored"), rejected.score.expect("scored"));
            let Target::Pair { p, .. } = example.target else { panic!("no pair") };
            prop_assert!(best >= worst);
            let wanted = if best == worst { 0.5 } else if hard { 1.0 } else { 1.0 / (1.0 + (0.7 * (worst - best)).exp()) };
            prop_assert!((p - wanted).abs() < 1e-12, "{} instead of {}", p, wanted);
            if hard && rules.filters.contains(&Filter::Ties) {
                prop_assert!(best > worst);
            }
            if hard && rules.filters.contains(&Filter::Identical) {
                prop_assert!(chosen.token_ids != rejected.token_ids);
            }
            if rules.filters.contains(&Filter::Truncated) {
                prop_assert!(chosen.finish == Finish::Eos && rejected.finish == Finish::Eos);
            }
        }
    }

    #[test]
    fn hard_pairs_are_those_that_brute_force_finds((rollout, given) in answers(), seed in any::<u64>()) {
        let rules = PairingRules {
            rationale: None,
            select: Select::AllPairs,
            filters: vec![Filter::Ties, Filter::Identical],
            label: Label::Hard,
            missing_eos_penalty: 0.0,
            score_scale: 1.0,
            threshold: 0.85,
            positions: 4,
            seed,
        };
        let outcome = outcome_of(&rollout, &scores(&given), &rules);
        let answers = &rollout.completions;
        let beats = |i: usize, j: usize| given[i] > given[j] && answers[i].token_ids != answers[j].token_ids;
        let expected = (0..given.len()).flat_map(|i| (0..given.len()).map(move |j| (i, j))).filter(|&(i, j)| beats(i, j));
        prop_assert_eq!(outcome.examples.len(), expected.count());
    }

    /// Scores and the Bradley-Terry matrix of the same scores are the same judgement, penalties included.
    #[test]
    fn a_matrix_of_scores_pairs_like_the_scores((rollout, given) in answers(), rules in any_rules()) {
        let rules = PairingRules { label: Label::Soft, filters: vec![], ..rules };
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let matrix: Vec<f64> = given.iter().flat_map(|a| given.iter().map(move |b| sigma(0.7 * (a - b)))).collect();
        let by_score = outcome_of(&rollout, &scores(&given), &rules);
        let by_matrix = outcome_of(&rollout, &judged(JudgementValue::Matrix(matrix)), &rules);
        prop_assert_eq!(by_score.examples.len(), by_matrix.examples.len());
        for (a, b) in by_score.examples.iter().zip(&by_matrix.examples) {
            let (Target::Pair { p: a, .. }, Target::Pair { p: b, .. }) = (&a.target, &b.target) else { panic!("no pair") };
            prop_assert!((a - b).abs() < 1e-9, "{} and {}", a, b);
        }
    }

    #[test]
    fn a_random_rival_is_any_other_answer(seed in any::<u64>()) {
        let answers = super::distinct(4);
        let rules = PairingRules { seed, ..super::rules(Select::MaxRandom, Label::Hard) };
        let pairs = super::pairs(&outcome_of(&answers, &scores(&[0.0, 5.0, 1.0, 2.0]), &rules));
        prop_assert!(matches!(pairs[..], [(1, 0 | 2 | 3, _)]), "{:?}", pairs);
    }
}

#[test]
fn random_rivals_are_equally_likely() {
    let answers = super::distinct(4);
    let mut counts = [0u32; 4];
    for seed in 0..3000 {
        let rules = PairingRules { seed, ..super::rules(Select::MaxRandom, Label::Hard) };
        let outcome = outcome_of(&answers, &scores(&[0.0, 5.0, 1.0, 2.0]), &rules);
        counts[super::pairs(&outcome)[0].1 as usize] += 1;
    }
    // 1000 each; the standard deviation is 26.
    assert_eq!(counts[1], 0);
    assert!([0, 2, 3].iter().all(|&i| (880..1120).contains(&counts[i])), "{counts:?}");
}

#[test]
fn the_reason_given_is_the_most_frequent() {
    let tokens = [[1u32], [1], [1], [2]];
    let answers = rollout((0..4).map(|i| completion(i, &tokens[i as usize], Finish::Eos)).collect());
    // Three identical pairs among equals, and three ties with the last: the lower reason in order wins the draw.
    let outcome = outcome_of(&answers, &scores(&[1.0; 4]), &super::rules(Select::AllPairs, Label::Hard));
    assert_eq!(outcome.dropped, Some(DropReason::Tie));
    let outcome = outcome_of(
        &rollout((0..3).map(|i| completion(i, &[1], Finish::Eos)).collect()),
        &scores(&[1.0; 3]),
        &super::rules(Select::AllPairs, Label::Hard),
    );
    assert_eq!(outcome.dropped, Some(DropReason::Identical));
}
