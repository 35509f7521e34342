//! Worked cases of what is not a pair: opponents, groups, and labels that are drawn.

use joust_core::{DropReason, Example, Finish, JudgementValue, Player, Target};

use super::{completion, distinct, judged, pairs, rollout, rules, scores};
use crate::{Filter, Label, PairingRules, Select, outcome_of};

/// P of 0 and 1 against 2 and 3 is 0.9, 0.4 and 0.5, 0.2.
fn matrix() -> JudgementValue {
    let p = [[0.5, 0.7, 0.9, 0.4], [0.3, 0.5, 0.5, 0.2], [0.1, 0.5, 0.5, 0.6], [0.6, 0.8, 0.4, 0.5]];
    JudgementValue::Matrix(p.concat())
}

/// Two answers of the policy, one of the mixture, one of the reference.
fn mixed() -> joust_core::Rollout {
    let mut rollout = distinct(4);
    rollout.completions[2].player = Player::Mixture;
    rollout.completions[3].player = Player::Reference;
    rollout
}

fn p_of(example: &Example) -> f64 {
    let Target::Opponent { p } = example.target else { panic!("no opponent in {:?}", example.target) };
    p
}

#[test]
fn opponents_judge_each_answer_of_the_policy() {
    for (label, expected) in [(Label::Soft, [0.65, 0.35]), (Label::Hard, [0.5, 0.25])] {
        let outcome = outcome_of(&mixed(), &judged(matrix()), &rules(Select::Opponent, label));
        assert_eq!(outcome.examples.len(), 2);
        for ((example, expected), token) in outcome.examples.iter().zip(expected).zip([0, 1]) {
            assert!((p_of(example) - expected).abs() < 1e-12, "{label:?}: {example:?}");
            assert_eq!(example.answers.len(), 1);
            assert_eq!((example.answers[0].token_ids[0], example.answers[0].player), (token, Player::Policy));
        }
        assert_ne!(outcome.examples[0].id, outcome.examples[1].id);
    }
}

#[test]
fn identical_answers_are_half_a_win_and_stay() {
    let mut same = rollout(vec![completion(0, &[4, 99], Finish::Eos), completion(1, &[4, 99], Finish::Eos)]);
    same.completions[1].player = Player::Mixture;
    for label in [Label::Soft, Label::Hard] {
        let outcome = outcome_of(&same, &scores(&[1.0, 1.0]), &rules(Select::Opponent, label));
        assert_eq!(outcome.examples.iter().map(p_of).collect::<Vec<_>>(), [0.5]);
    }
}

#[test]
fn without_both_sides_there_is_no_opponent() {
    let outcome = outcome_of(&distinct(2), &scores(&[1.0, 0.0]), &rules(Select::Opponent, Label::Soft));
    assert_eq!(outcome.dropped, Some(DropReason::Filtered));
}

#[test]
fn truncated_answers_are_not_trained_but_do_oppose() {
    let mut cut = mixed();
    cut.completions[0].finish = Finish::Length;
    cut.completions[3].finish = Finish::Length;
    let filtered = PairingRules { filters: vec![Filter::Truncated], ..rules(Select::Opponent, Label::Soft) };
    let outcome = outcome_of(&cut, &judged(matrix()), &filtered);
    assert_eq!(outcome.examples.iter().map(p_of).collect::<Vec<_>>(), [0.35]);
    assert_eq!(outcome.left_out, [(DropReason::Filtered, 1)]);
}

#[test]
fn a_group_holds_all_answers_with_scores_and_win_rates() {
    let given = scores(&[0.0, 2.0, 1.0]);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let rate = |s: f64| [0.0, 2.0, 1.0].iter().map(|other| sigmoid(s - other)).sum::<f64>() / 3.0;
    for (select, order) in [(Select::Single, [0u32, 1, 2]), (Select::List, [1, 2, 0])] {
        let outcome = outcome_of(&distinct(3), &given, &rules(select, Label::Soft));
        let [example] = outcome.examples.as_slice() else { panic!("{outcome:?}") };
        assert_eq!(example.answers.iter().map(|a| a.token_ids[0]).collect::<Vec<_>>(), order);
        let Target::Group { win_rates } = &example.target else { panic!("{:?}", example.target) };
        for (answer, found) in example.answers.iter().zip(win_rates) {
            let score = [0.0, 2.0, 1.0][answer.token_ids[0] as usize];
            assert_eq!(answer.score, Some(score));
            assert!((found - rate(score)).abs() < 1e-12);
        }
    }
    let tied = outcome_of(&distinct(3), &scores(&[1.0; 3]), &rules(Select::List, Label::Hard));
    assert_eq!(tied.dropped, Some(DropReason::Tie));
    assert_eq!(outcome_of(&distinct(3), &scores(&[1.0; 3]), &rules(Select::Single, Label::Hard)).dropped, None);
}

#[test]
fn drawn_labels_are_right_on_average_and_the_same_each_time() {
    let answer = judged(JudgementValue::Preference(0.8));
    let draw = |seed| {
        let outcome =
            outcome_of(&distinct(2), &answer, &PairingRules { seed, ..rules(Select::BestWorst, Label::Sampled) });
        let [(chosen, _, p)] = pairs(&outcome)[..] else { panic!("one pair") };
        assert_eq!(p, 1.0);
        chosen == 0
    };
    let wins = (0..4000).filter(|seed| draw(*seed)).count() as f64 / 4000.0;
    assert!((wins - 0.8).abs() < 0.02, "{wins}");
    assert!((0..20).all(|seed| draw(seed) == draw(seed)));
    // Scores stay what the judge gave.
    let outcome = outcome_of(&distinct(2), &scores(&[0.0, 1.0]), &rules(Select::BestWorst, Label::Sampled));
    assert_eq!(outcome.scores, [0.0, 1.0]);
}
