//! Replay: shares, orders and independence of arrival.

use std::collections::BTreeSet;

use joust_core::{JudgementValue, RecordId, Target};
use proptest::prelude::*;

use super::{distinct, judged, rules, scores};
use crate::{
    Label, Select, outcome_of,
    replay::{Entry, Order, choose, evicted, margin_of, replay_count},
};

fn entry(n: u64, applied_step: u64, margin: f64) -> Entry {
    Entry { id: RecordId::derive(&[&n.to_le_bytes()]), applied_step, margin }
}

fn pool() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec((0u64..5, -2i8..3), 0..20).prop_map(|entries| {
        entries.iter().enumerate().map(|(n, &(step, margin))| entry(n as u64, step, f64::from(margin))).collect()
    })
}

fn any_order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Recent), Just(Order::Uniform), Just(Order::Margin)]
}

proptest! {
    #[test]
    fn the_share_of_replayed_examples_is_the_ratio(fresh in 1usize..500, ratio in 0.0f64..0.9) {
        let replayed = replay_count(fresh, ratio).expect("in range") as f64;
        // Rounding moves the count by at most a half, and so the share by at most a half over the total.
        let share = replayed / (fresh as f64 + replayed);
        prop_assert!((share - ratio).abs() <= 0.5 / fresh as f64, "{} of {}", share, ratio);
    }

    #[test]
    fn a_choice_is_distinct_and_independent_of_arrival(
        entries in pool(), order in any_order(), k in 0usize..25, seed in any::<u64>(), step in 0u64..9,
        shuffled in any::<prop::sample::Index>(),
    ) {
        let chosen = choose(&entries, order, k, (seed, step));
        prop_assert_eq!(chosen.len(), k.min(entries.len()));
        prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
        let mut rotated = entries.clone();
        if !rotated.is_empty() {
            let by = shuffled.index(rotated.len());
            rotated.rotate_left(by);
            rotated.reverse();
        }
        prop_assert_eq!(&chosen, &choose(&rotated, order, k, (seed, step)));
        let key = |id: &RecordId| entries.iter().find(|entry| entry.id == *id).map(|e| match order {
            Order::Recent => -(e.applied_step as f64),
            Order::Uniform => 0.0,
            Order::Margin => e.margin,
        });
        let left = entries.iter().filter(|entry| !chosen.contains(&entry.id));
        for other in left {
            for id in &chosen {
                prop_assert!(key(id) <= key(&other.id));
            }
        }
    }

    #[test]
    fn the_oldest_are_forgotten(entries in pool(), capacity in 0usize..25) {
        let gone = evicted(&entries, capacity);
        prop_assert_eq!(gone.len(), entries.len().saturating_sub(capacity));
        let step = |id: &RecordId| entries.iter().find(|entry| entry.id == *id).map(|entry| entry.applied_step);
        let newest_gone = gone.iter().filter_map(step).max();
        let oldest_kept = entries.iter().filter(|e| !gone.contains(&e.id)).map(|e| e.applied_step).min();
        if let (Some(gone), Some(kept)) = (newest_gone, oldest_kept) {
            prop_assert!(gone <= kept);
        }
    }
}

#[test]
fn uniform_draws_every_example_as_often() {
    let entries: Vec<Entry> = (0..10).map(|n| entry(n, n, 0.0)).collect();
    let mut counts = [0u32; 10];
    for step in 0..2000 {
        for id in choose(&entries, Order::Uniform, 3, (7, step)) {
            counts[entries.iter().position(|entry| entry.id == id).expect("of the pool")] += 1;
        }
    }
    // 600 each; the standard deviation is 20.
    assert!(counts.iter().all(|count| (500..700).contains(count)), "{counts:?}");
}

#[test]
fn a_ratio_out_of_range_is_named() {
    assert_eq!(replay_count(12, 0.25), Ok(4));
    for ratio in [1.0, -0.1, f64::NAN] {
        let message = replay_count(12, ratio).expect_err("refused").to_string();
        assert!(message.starts_with("pairing.replay.ratio is"), "{message}");
    }
}

#[test]
fn margins_come_from_scores_or_odds() {
    let rules = rules(Select::BestWorst, Label::Soft);
    let scored = outcome_of(&distinct(2), &scores(&[1.0, 3.5]), &rules);
    assert_eq!(margin_of(&scored.examples[0]), 2.5);
    let mut preferred = outcome_of(&distinct(2), &judged(JudgementValue::Preference(0.8)), &rules);
    assert!((margin_of(&preferred.examples[0]) - 4.0f64.ln()).abs() < 1e-12);
    preferred.examples[0].target = Target::Pair { p: 1.0, win_rates: None };
    assert_eq!(margin_of(&preferred.examples[0]), f64::INFINITY);
}
