//! Preferences that are made of who answered.

use joust_core::{JudgementValue, Player};

use super::{call, item, json, preference, scores};
use crate::{Ask, JudgeItem, Opened, build};

fn answered(ask: Ask, players: &[Player]) -> JudgeItem {
    let mut asked = item(1, ask, &vec!["same"; players.len()]);
    asked.candidates.iter_mut().zip(players).for_each(|(candidate, player)| candidate.player = *player);
    asked
}

#[tokio::test]
async fn earlier_players_win_whatever_they_say() {
    let settings = r#"{ "kind": "players", "name": "style", "order": ["styled", "policy"] }"#;
    let judge = build(&json(settings), &[], &Opened::default()).expect("valid settings");
    let all = [Player::Policy, Player::Styled, Player::Reference, Player::Policy];
    let asked = [
        answered(Ask::Compare, &[Player::Policy, Player::Styled]),
        answered(Ask::Compare, &[Player::Styled, Player::Reference]),
        answered(Ask::Compare, &[Player::Policy, Player::Policy]),
        answered(Ask::Score, &all),
        answered(Ask::Rank, &all[..3]),
    ];
    let answers = judge.judge(&asked, &call()).await;
    assert_eq!([0, 1, 2].map(|i: usize| preference(&answers[i])), [0.0, 1.0, 0.5]);
    assert_eq!(scores(&answers[3]), [-1.0, -0.0, -2.0, -1.0]);
    let Some(JudgementValue::Matrix(matrix)) = &answers[4].value else { panic!("{:?}", answers[4]) };
    assert_eq!(matrix, &[0.5, 0.0, 1.0, 1.0, 0.5, 1.0, 0.0, 0.0, 0.5]);
}
