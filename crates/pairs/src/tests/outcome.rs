//! Worked cases: what becomes of a few answers, by hand.

use joust_core::{DropReason, Finish, JudgementStatus, JudgementValue, ModelRef, Player, Target};

use super::{completion, distinct, judged, pairs, rollout, rules, scores};
use crate::{Filter, Label, PairingRules, Select, Weight, outcome_of, weight_of};

#[test]
fn best_meets_worst() {
    let outcome = outcome_of(&distinct(4), &scores(&[1.0, 3.0, -2.0, 0.0]), &rules(Select::BestWorst, Label::Hard));
    assert_eq!(pairs(&outcome), [(1, 2, 1.0)]);
    assert_eq!(outcome.scores, [1.0, 3.0, -2.0, 0.0]);
    let example = &outcome.examples[0];
    assert_eq!((example.answers[0].score, example.answers[1].score), (Some(3.0), Some(-2.0)));
    assert_eq!((example.policy_version, example.weight, example.judge_hash.as_str()), (3, 1.0, "hash"));
    assert_eq!((outcome.position, outcome.eos_share, outcome.mean_tokens), (11, 1.0, 2.0));
}

#[test]
fn soft_labels_carry_the_probability_of_the_likelier() {
    let outcome =
        outcome_of(&distinct(2), &judged(JudgementValue::Preference(0.2)), &rules(Select::BestWorst, Label::Soft));
    assert_eq!(pairs(&outcome), [(1, 0, 0.8)]);
    assert!(outcome.scores.is_empty());
    let scaled = PairingRules { score_scale: 2.0, ..rules(Select::BestWorst, Label::Soft) };
    let p = pairs(&outcome_of(&distinct(2), &scores(&[1.0, 0.5]), &scaled))[0].2;
    assert!((p - 0.731_058_578_630_004_9).abs() < 1e-15, "{p}"); // σ(1)
}

#[test]
fn ties_and_identical_answers_are_dropped_by_hard_labels_only() {
    let same = rollout(vec![completion(0, &[4, 9], Finish::Eos), completion(1, &[4, 9], Finish::Eos)]);
    for (rollout, reason) in [(distinct(2), DropReason::Tie), (same, DropReason::Identical)] {
        let hard = outcome_of(&rollout, &scores(&[2.0, 2.0]), &rules(Select::BestWorst, Label::Hard));
        assert_eq!((hard.dropped, hard.examples.len()), (Some(reason), 0));
        let soft = outcome_of(&rollout, &scores(&[2.0, 2.0]), &rules(Select::BestWorst, Label::Soft));
        assert_eq!((soft.dropped, pairs(&soft)[0].2), (None, 0.5));
    }
    let lenient = PairingRules { filters: vec![], ..rules(Select::BestWorst, Label::Hard) };
    assert_eq!(pairs(&outcome_of(&distinct(2), &scores(&[2.0, 2.0]), &lenient)), [(0, 1, 0.5)]);
}

#[test]
fn all_pairs_are_ordered_and_counted() {
    let rules = rules(Select::AllPairs, Label::Hard);
    let outcome = outcome_of(&distinct(3), &scores(&[1.0, 2.0, 1.0]), &rules);
    assert_eq!(pairs(&outcome), [(1, 0, 1.0), (1, 2, 1.0)]);
    assert_eq!((outcome.dropped, outcome.left_out), (None, vec![(DropReason::Tie, 1)]));
}

#[test]
fn the_matrix_orders_even_when_preferences_cycle() {
    // 0 beats 1, 1 beats 2, 2 beats 0; the row means are 0.5, 0.6 and 0.4.
    let matrix = vec![0.5, 0.7, 0.3, 0.3, 0.5, 1.0, 0.7, 0.0, 0.5];
    let outcome = outcome_of(
        &distinct(3),
        &judged(JudgementValue::Matrix(matrix.clone())),
        &rules(Select::BestWorst, Label::Soft),
    );
    assert_eq!(pairs(&outcome), [(1, 2, 1.0)]);
    let all = outcome_of(&distinct(3), &judged(JudgementValue::Matrix(matrix)), &rules(Select::AllPairs, Label::Soft));
    assert_eq!(pairs(&all), [(0, 1, 0.7), (2, 0, 0.7), (1, 2, 1.0)]);
}

#[test]
fn truncated_answers_lose_their_penalty_or_their_place() {
    let answers = || {
        rollout(vec![
            completion(0, &[0, 9], Finish::Length),
            completion(1, &[1, 9], Finish::Eos),
            completion(2, &[2], Finish::Eos),
        ])
    };
    let penalised = PairingRules { missing_eos_penalty: 5.0, ..rules(Select::BestWorst, Label::Hard) };
    let outcome = outcome_of(&answers(), &scores(&[3.0, 1.0, 0.0]), &penalised);
    assert_eq!(pairs(&outcome), [(1, 0, 1.0)]);
    assert_eq!(outcome.scores, [-2.0, 1.0, 0.0]);
    assert!((outcome.eos_share - 2.0 / 3.0).abs() < 1e-15);

    let filters = vec![Filter::Truncated];
    let excluded = PairingRules { filters: filters.clone(), ..rules(Select::BestWorst, Label::Hard) };
    assert_eq!(pairs(&outcome_of(&answers(), &scores(&[3.0, 1.0, 0.0]), &excluded)), [(1, 2, 1.0)]);
    let all = PairingRules { filters, ..rules(Select::AllPairs, Label::Hard) };
    let outcome = outcome_of(&answers(), &scores(&[3.0, 1.0, 0.0]), &all);
    assert_eq!((pairs(&outcome), outcome.left_out), (vec![(1, 2, 1.0)], vec![(DropReason::Filtered, 2)]));
}

#[test]
fn a_penalty_moves_a_preference_in_log_odds() {
    let answers = rollout(vec![completion(0, &[0], Finish::Length), completion(1, &[1], Finish::Eos)]);
    let rules = PairingRules { missing_eos_penalty: 2.0, score_scale: 0.5, ..rules(Select::BestWorst, Label::Soft) };
    // logit(p) = 0 before, −0.5·2 after: σ(1) for the other.
    let outcome = outcome_of(&answers, &judged(JudgementValue::Preference(0.5)), &rules);
    let (chosen, rejected, p) = pairs(&outcome)[0];
    assert_eq!((chosen, rejected), (1, 0));
    assert!((p - 0.731_058_578_630_004_9).abs() < 1e-15, "{p}");
}

#[test]
fn what_is_not_a_verdict_never_becomes_an_example() {
    let bad = [
        scores(&[1.0, f64::NAN]),
        scores(&[1.0, f64::INFINITY]),
        scores(&[1.0]),
        judged(JudgementValue::Preference(1.5)),
        judged(JudgementValue::Preference(f64::NAN)),
        judged(JudgementValue::Matrix(vec![0.5, 0.9, 0.9, 0.5])),
        judged(JudgementValue::Matrix(vec![0.5; 9])),
        joust_core::Judgement { value: None, ..scores(&[]) },
        joust_core::Judgement { status: JudgementStatus::Refused, ..scores(&[1.0, 0.0]) },
    ];
    for judgement in bad {
        let outcome = outcome_of(&distinct(2), &judgement, &rules(Select::BestWorst, Label::Soft));
        assert_eq!(outcome.dropped, Some(DropReason::JudgementFailed), "{judgement:?}");
        assert!(outcome.examples.is_empty() && outcome.scores.is_empty());
    }
}

#[test]
fn one_answer_has_nothing_to_meet() {
    let outcome = outcome_of(&distinct(1), &scores(&[1.0]), &rules(Select::BestWorst, Label::Hard));
    assert_eq!((outcome.dropped, outcome.examples.len()), (Some(DropReason::Filtered), 0));
}

#[test]
fn the_version_is_that_of_the_player_whose_staleness_counts() {
    let mut answers = distinct(2);
    answers.completions[0].model = ModelRef { generation: 0, version: 9, hash: "p".into() };
    answers.completions[1].player = Player::Reference;
    answers.completions[1].model = ModelRef { generation: 0, version: 0, hash: "r".into() };
    let outcome = outcome_of(&answers, &scores(&[1.0, 0.0]), &rules(Select::BestWorst, Label::Hard));
    assert_eq!(outcome.examples[0].policy_version, 9);
}

#[test]
fn settings_out_of_range_are_named() {
    let bad = PairingRules { missing_eos_penalty: -1.0, ..rules(Select::BestWorst, Label::Hard) };
    let message = bad.validate().expect_err("refused").to_string();
    assert_eq!(message, "sampling.missing_eos_penalty is -1, expected a finite number of at least 0");
    let bad = PairingRules { score_scale: f64::NAN, ..rules(Select::BestWorst, Label::Hard) };
    assert!(bad.validate().is_err());
    assert!(rules(Select::BestWorst, Label::Hard).validate().is_ok());
}

#[test]
fn win_rates_come_straight_from_the_matrix() {
    // Rock, paper, scissors with a strong fourth answer: 0 beats 1, 1 beats 2, 2 beats 0; 3 beats all with 0.9.
    #[rustfmt::skip]
    let matrix = vec![
        0.5, 0.8, 0.3, 0.1,
        0.2, 0.5, 0.7, 0.1,
        0.7, 0.3, 0.5, 0.1,
        0.9, 0.9, 0.9, 0.5,
    ];
    let judgement = judged(JudgementValue::Matrix(matrix));
    let rates = |label| {
        let outcome = outcome_of(&distinct(4), &judgement, &rules(Select::WinRate, label));
        let Target::Pair { p, win_rates } = outcome.examples[0].target else { panic!("no pair") };
        (pairs(&outcome)[0], p, win_rates.expect("rates"))
    };
    let (pair, p, [best, worst]) = rates(Label::Soft);
    assert_eq!((pair.0, pair.1, p), (3, 1, 0.9));
    assert!((best - 3.2 / 4.0).abs() < 1e-12 && (worst - 1.5 / 4.0).abs() < 1e-12, "{best} {worst}");
    assert_eq!(rates(Label::Hard).2, [1.0, 0.0]);
    let even = judged(JudgementValue::Matrix(vec![0.5; 9]));
    let outcome = outcome_of(&distinct(3), &even, &rules(Select::WinRate, Label::Soft));
    assert_eq!(outcome.dropped, Some(DropReason::Tie), "equal rates teach nothing but to stay");
    let scored = outcome_of(&distinct(2), &scores(&[2.0, 2.5]), &rules(Select::WinRate, Label::Soft));
    let Target::Pair { win_rates, .. } = scored.examples[0].target else { panic!("no pair") };
    let sigma = 1.0 / (1.0 + (-0.5f64).exp());
    assert!((win_rates.expect("rates")[0] - (0.5 + sigma) / 2.0).abs() < 1e-15);
}

#[test]
fn rejection_keeps_the_sure_pairs() {
    // RS-DPO's worked case: scores 2, 0.5, 1 and -1.5 at 0.85 leave the last against each other one.
    let outcome = outcome_of(&distinct(4), &scores(&[2.0, 0.5, 1.0, -1.5]), &rules(Select::Rejection, Label::Hard));
    assert_eq!(pairs(&outcome), [(0, 3, 1.0), (1, 3, 1.0), (2, 3, 1.0)]);
    assert_eq!(outcome.left_out, [(DropReason::Filtered, 3)]);
    let unsure = outcome_of(&distinct(3), &scores(&[0.1, 0.2, 0.3]), &rules(Select::Rejection, Label::Hard));
    assert_eq!(unsure.dropped, Some(DropReason::Filtered));
    for threshold in [0.4, 1.0, f64::NAN] {
        let bad = PairingRules { threshold, ..rules(Select::Rejection, Label::Hard) };
        assert!(bad.validate().expect_err("refused").to_string().contains("pairing.threshold"));
    }
}

#[test]
fn the_sweet_spot_is_the_weakest_of_five() {
    let given = [1.2, -0.7, 0.3, 2.4, 0.9, -1.9, 0.1, 1.6, -0.2, 0.5];
    let mut rejected = std::collections::BTreeMap::new();
    for seed in 0..400 {
        let rules = PairingRules { seed, ..rules(Select::SweetSpot, Label::Hard) };
        let [(chosen, loser, _)] = pairs(&outcome_of(&distinct(10), &scores(&given), &rules))[..] else {
            panic!("one")
        };
        assert_eq!(chosen, 3);
        *rejected.entry(loser).or_insert(0u32) += 1;
    }
    // Of nine others, the weakest is among five with 5/9, and the second weakest is then the pick with (4/9)(5/8).
    let share = |i: u32| f64::from(rejected[&i]) / 400.0;
    assert!((share(5) - 5.0 / 9.0).abs() < 0.08 && (share(1) - 20.0 / 72.0).abs() < 0.08, "{rejected:?}");
    assert!(!rejected.contains_key(&7), "the second strongest is never the weakest of five");
}

#[test]
fn ranks_meet_from_both_ends() {
    let outcome = outcome_of(&distinct(5), &scores(&[0.0, 4.0, 1.0, 3.0, 2.0]), &rules(Select::Ranked, Label::Hard));
    assert_eq!(pairs(&outcome), [(1, 0, 1.0), (3, 2, 1.0)]);
}

#[test]
fn the_two_strongest_meet() {
    let outcome = outcome_of(&distinct(4), &scores(&[0.0, 4.0, 1.0, 3.0]), &rules(Select::MaxMax, Label::Hard));
    assert_eq!(pairs(&outcome), [(1, 3, 1.0)]);
}

#[test]
fn a_curriculum_goes_from_easy_to_hard_pairs() {
    // Twelve positions and three stages: the best meets rank 4, then rank 3, then rank 2.
    let rejected = |position: u64| {
        let mut rollout = distinct(4);
        rollout.task.position = position;
        let outcome = outcome_of(&rollout, &scores(&[0.0, 4.0, 1.0, 3.0]), &rules(Select::Curriculum, Label::Hard));
        let [(1, rejected, _)] = pairs(&outcome)[..] else { panic!("the best is chosen") };
        rejected
    };
    let stages: Vec<u32> = (0..12).map(rejected).collect();
    assert_eq!(stages, [0, 0, 0, 0, 2, 2, 2, 2, 3, 3, 3, 3]);
    assert_eq!(rejected(99), 3, "beyond the end the last stage stays");
}

#[test]
fn weights_fall_with_age_and_with_doubt() {
    let example = |values: &[f64]| {
        outcome_of(&distinct(2), &scores(values), &rules(Select::BestWorst, Label::Hard)).examples.remove(0)
    };
    let clear = example(&[1.7, -0.4]);
    assert_eq!(weight_of(&[], &clear, 7), 1.0);
    let gap = weight_of(&[Weight::ScoreGap], &clear, 7);
    assert!((gap - 1.0 / (1.0 + (-2.1f64).exp())).abs() < 1e-12);
    let both = [Weight::ScoreGap, Weight::Staleness { decay: 0.5 }];
    assert!((weight_of(&both, &clear, 2) - gap / 4.0).abs() < 1e-12);
    let mut unscored = clear;
    unscored.answers[0].score = None;
    unscored.target = joust_core::Target::Pair { p: 0.8, win_rates: None };
    assert_eq!(weight_of(&[Weight::ScoreGap], &unscored, 0), 0.8);
}

#[test]
fn notes_become_the_reason_of_a_pair() {
    let asked = PairingRules { rationale: Some("Why?".into()), ..rules(Select::BestWorst, Label::Hard) };
    let notes: Vec<String> = ["is dull", "is kind", "is odd"].map(str::to_owned).to_vec();
    let noted = joust_core::Judgement { notes: notes.clone(), ..scores(&[1.0, 3.0, 2.0]) };
    let reason = |judgement: &joust_core::Judgement, rules: &PairingRules| {
        let mut rollout = distinct(3);
        rollout.completions.iter_mut().for_each(|c| c.text = format!(" answer {}", c.sample_index));
        outcome_of(&rollout, judgement, rules).examples.remove(0).rationale
    };
    let found = reason(&noted, &asked).expect("a reason");
    assert_eq!(found.text, " The first is kind. The second is dull.");
    assert_eq!(found.prompt, joust_core::Prompt::Text("Once answer 1\n\nOnce answer 0\n\nWhy?".into()));
    // A judge that wrote nothing, or not about all, and a run that does not ask.
    assert_eq!(reason(&scores(&[1.0, 3.0, 2.0]), &asked), None);
    assert_eq!(reason(&joust_core::Judgement { notes: notes[..1].to_vec(), ..noted.clone() }, &asked), None);
    assert_eq!(reason(&noted, &rules(Select::BestWorst, Label::Hard)), None);
}

#[test]
fn the_question_joins_the_last_message_of_a_chat() {
    let message = |role: &str, content: &str| joust_core::Message::new(role, content);
    let asked = PairingRules { rationale: Some("Why?".into()), ..rules(Select::BestWorst, Label::Hard) };
    let noted = joust_core::Judgement { notes: vec!["is kind".into(), "is odd".into()], ..scores(&[3.0, 2.0]) };
    let mut rollout = distinct(2);
    rollout.completions.iter_mut().for_each(|c| c.text = format!("A{}", c.sample_index));
    rollout.task.prompt = joust_core::Prompt::Chat(vec![message("user", "Hi")].into());
    let found = outcome_of(&rollout, &noted, &asked).examples.remove(0).rationale.expect("a reason");
    let question = "Hi\n\nFirst answer:\nA0\n\nSecond answer:\nA1\n\nWhy?";
    assert_eq!(found.prompt, joust_core::Prompt::Chat(vec![message("user", question)].into()));
}

#[test]
fn equals_in_a_matrix_are_not_told_apart_by_rounding() {
    let given = [2.0, 0.0, 0.0, 2.0];
    let ends = [Finish::Length, Finish::Eos, Finish::Eos, Finish::Length];
    let completions = (0..4).map(|i| completion(i, &[i, 99], ends[i as usize])).collect();
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    let matrix = given.iter().flat_map(|a| given.iter().map(move |b| sigma(0.7 * (a - b)))).collect();
    let judged = super::judged(JudgementValue::Matrix(matrix));
    let penalised =
        PairingRules { missing_eos_penalty: 1.0, score_scale: 0.7, ..rules(Select::BestWorst, Label::Soft) };
    let rollout = rollout(completions);
    assert_eq!(pairs(&outcome_of(&rollout, &judged, &penalised))[0].0, 0, "the first of two equal answers");
    assert_eq!(pairs(&outcome_of(&rollout, &scores(&given), &penalised))[0].0, 0);
}
