//! Examples that are not pairs: an answer against its opponents, and the answers of a prompt together.

use std::{cmp::Ordering, collections::BTreeMap};

use joust_core::{DropReason, Example, Finish, Player, Target};

use crate::{
    Filter, Label, PairingRules, Select,
    beliefs::Beliefs,
    outcome::{Judged, example},
};

/// Contrasts each answer of the policy with all answers of other players; only the policy's is trained.
///
/// Ties and identical answers stay: they say that the policy beats itself half of the time.
pub(crate) fn opponents(judged: &Judged<'_>, refused: &mut BTreeMap<DropReason, u32>) -> Vec<Example> {
    let answers = &judged.rollout.completions;
    let by_policy = |i: &usize| answers[*i].player == Player::Policy;
    let (own, others): (Vec<usize>, Vec<usize>) = (0..answers.len()).partition(by_policy);
    if own.is_empty() || others.is_empty() {
        refused.insert(DropReason::Filtered, 1);
        return Vec::new();
    }
    let (kept, cut): (Vec<usize>, Vec<usize>) = own.into_iter().partition(|i| judged.takes_part(*i));
    if !cut.is_empty() {
        refused.insert(DropReason::Filtered, cut.len() as u32);
    }
    let build = |i: usize| {
        let labels = others.iter().map(|&j| label(judged.beliefs, judged.rules, (i, j)));
        let p = labels.sum::<f64>() / others.len() as f64;
        let seen: Vec<usize> = std::iter::once(i).chain(others.iter().copied()).collect();
        example(judged, &[i], &seen, Target::Opponent { p })
    };
    kept.into_iter().map(build).collect()
}

/// Returns what the loss is told about i against j.
fn label(beliefs: &Beliefs, rules: &PairingRules, (i, j): (usize, usize)) -> f64 {
    match (rules.label, beliefs.compare(i, j)) {
        (Label::Soft | Label::Sampled, _) => beliefs.probability(i, j),
        (Label::Hard, Ordering::Greater) => 1.0,
        (Label::Hard, Ordering::Equal) => 0.5,
        (Label::Hard, Ordering::Less) => 0.0,
    }
}

/// Puts the answers of the prompt into one example: by sample index for [`Select::Single`], best first for [`Select::List`].
pub(crate) fn group(judged: &Judged<'_>, refused: &mut BTreeMap<DropReason, u32>) -> Option<Example> {
    let all = judged.rollout.completions.len();
    let mut members: Vec<usize> = (0..all).filter(|i| judged.takes_part(*i)).collect();
    if members.len() < 2 {
        refused.insert(DropReason::Filtered, 1);
        return None;
    }
    if judged.rules.select == Select::List {
        let strength = |i: usize| judged.beliefs.strength(i);
        members.sort_by(|&i, &j| strength(j).total_cmp(&strength(i)).then(i.cmp(&j)));
        let equal = strength(members[0]) == strength(members[members.len() - 1]);
        if equal && judged.rules.refuses(Filter::Ties) {
            refused.insert(DropReason::Tie, 1);
            return None;
        }
    }
    let win_rates = members.iter().map(|&i| judged.beliefs.win_rate(i)).collect();
    Some(example(judged, &members, &members, Target::Group { win_rates }))
}

impl Judged<'_> {
    /// Returns whether the filter on truncated answers lets this one take part.
    pub(crate) fn takes_part(&self, i: usize) -> bool {
        !self.rules.refuses(Filter::Truncated) || self.rollout.completions[i].finish == Finish::Eos
    }
}
