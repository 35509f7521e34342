//! From judged answers to the outcome of a prompt.

use std::{cmp::Ordering, collections::BTreeMap};

use joust_core::{
    Answer, Completion, DropReason, Example, ExampleSource, Finish, Judgement, Message, Outcome, Player, Prompt,
    Rationale, RecordId, Rollout, SCHEMA, Target,
};

use crate::{Filter, Label, PairingRules, Select, beliefs::Beliefs, select, targets};

/// A prompt's answers with what is known about them.
pub(crate) struct Judged<'a> {
    pub(crate) rollout: &'a Rollout,
    pub(crate) beliefs: &'a Beliefs,
    pub(crate) rules: &'a PairingRules,
    judge_hash: &'a str,
    /// What the judge wrote about each answer; empty where it wrote nothing.
    notes: &'a [String],
}

/// A pair in order, with the probability that the first is the better one.
struct Ordered {
    chosen: usize,
    rejected: usize,
    p: f64,
    win_rates: Option<[f64; 2]>,
}

/// Makes examples of the answers of a rollout as its judgement says.
///
/// A judgement that failed, does not fit the answers or holds what is not a number becomes
/// [`DropReason::JudgementFailed`], never an example (R3). With fewer than two answers that may take part the outcome is
/// [`DropReason::Filtered`]. When every pair is refused, the most frequent reason is given.
///
/// # Arguments
/// * `rollout` - the prompt and its K answers, by sample index.
/// * `judgement` - scores, a preference (K = 2) or a matrix, in the order of the answers.
/// * `rules` - settings that passed [`PairingRules::validate`].
pub fn outcome_of(rollout: &Rollout, judgement: &Judgement, rules: &PairingRules) -> Outcome {
    let judge_hash = &judgement.provenance.config_hash;
    let Some(beliefs) = Beliefs::of(judgement, &rollout.completions, rules) else {
        return Outcome { dropped: Some(DropReason::JudgementFailed), ..blank(rollout, judge_hash) };
    };
    let key = (rules.seed, rollout.task.position);
    let beliefs = if rules.label == Label::Sampled { beliefs.drawn(key) } else { beliefs };
    let judged = Judged { rollout, beliefs: &beliefs, rules, judge_hash, notes: &judgement.notes };
    let mut refused: BTreeMap<DropReason, u32> = BTreeMap::new();
    let examples = match rules.select {
        Select::Opponent => targets::opponents(&judged, &mut refused),
        Select::Single | Select::List => targets::group(&judged, &mut refused).into_iter().collect(),
        _ => pairs(&judged, &mut refused),
    };
    let dropped = examples.is_empty().then(|| most_frequent(&refused));
    let left_out = if examples.is_empty() { Vec::new() } else { refused.into_iter().collect() };
    Outcome { examples, dropped, left_out, scores: beliefs.scores().to_vec(), ..blank(rollout, judge_hash) }
}

/// Builds the pairs, and counts those that are refused.
fn pairs(judged: &Judged<'_>, refused: &mut BTreeMap<DropReason, u32>) -> Vec<Example> {
    let mut examples = Vec::new();
    for (i, j) in candidates(judged, refused) {
        match accept(judged, (i, j)) {
            Ok(Ordered { chosen, rejected, p, win_rates }) => {
                let members = [chosen, rejected];
                let example = example(judged, &members, &members, Target::Pair { p, win_rates });
                examples.push(Example { rationale: rationale(judged, chosen, rejected), ..example });
            }
            Err(reason) => *refused.entry(reason).or_default() += 1,
        }
    }
    examples
}

/// Returns the outcome without examples, reason and scores.
fn blank(rollout: &Rollout, judge_hash: &str) -> Outcome {
    let answers = &rollout.completions;
    let count = answers.len().max(1) as f64;
    let ended = answers.iter().filter(|answer| answer.finish == Finish::Eos).count();
    Outcome {
        schema: SCHEMA,
        id: RecordId::derive(&[b"outcome", rollout.task.id.as_bytes(), judge_hash.as_bytes()]),
        position: rollout.task.position,
        purpose: rollout.task.purpose,
        examples: Vec::new(),
        dropped: None,
        left_out: Vec::new(),
        scores: Vec::new(),
        eos_share: ended as f64 / count,
        mean_tokens: answers.iter().map(|answer| answer.token_ids.len()).sum::<usize>() as f64 / count,
    }
}

/// Returns the pairs to look at, and counts those that truncated answers cost.
fn candidates(judged: &Judged<'_>, refused: &mut BTreeMap<DropReason, u32>) -> Vec<(usize, usize)> {
    let Judged { rollout, beliefs, rules, .. } = judged;
    let all = rollout.completions.len();
    let eligible: Vec<usize> = (0..all).filter(|i| judged.takes_part(*i)).collect();
    let pairs = select::pairs(rules, beliefs, &eligible, rollout.task.position);
    let wanted = match rules.select {
        Select::AllPairs | Select::Rejection => all * all.saturating_sub(1) / 2,
        Select::Ranked => all / 2,
        _ => 1,
    };
    if pairs.len() < wanted {
        refused.insert(DropReason::Filtered, (wanted - pairs.len()) as u32);
    }
    pairs
}

/// Orders a pair by who is preferred, or says why it is refused.
fn accept(judged: &Judged<'_>, (i, j): (usize, usize)) -> Result<Ordered, DropReason> {
    let Judged { rollout, beliefs, rules, .. } = judged;
    let identical = rollout.completions[i].token_ids == rollout.completions[j].token_ids;
    if identical && rules.refuses(Filter::Identical) {
        return Err(DropReason::Identical);
    }
    if rules.select == Select::WinRate {
        return by_win_rate(beliefs, rules, (i, j));
    }
    let order = beliefs.compare(i, j);
    if order == Ordering::Equal && rules.refuses(Filter::Ties) {
        return Err(DropReason::Tie);
    }
    let (chosen, rejected) = if order == Ordering::Less { (j, i) } else { (i, j) };
    let p = match (rules.label, order) {
        (_, Ordering::Equal) => 0.5,
        (Label::Hard | Label::Sampled, _) => 1.0,
        (Label::Soft, _) => beliefs.probability(chosen, rejected),
    };
    Ok(Ordered { chosen, rejected, p, win_rates: None })
}

/// Orders the answers by win rate, which an intransitive judge may contradict in the pair itself; only equal rates are a tie.
///
/// A hard label makes the rates 1 and 0.
fn by_win_rate(beliefs: &Beliefs, rules: &PairingRules, (i, j): (usize, usize)) -> Result<Ordered, DropReason> {
    let (mut chosen, mut rejected) = (i, j);
    if beliefs.win_rate(j) > beliefs.win_rate(i) {
        (chosen, rejected) = (j, i);
    }
    let rates = [beliefs.win_rate(chosen), beliefs.win_rate(rejected)];
    if rates[0] == rates[1] {
        return Err(DropReason::Tie);
    }
    let (p, rates) = match rules.label {
        Label::Hard => (1.0, [1.0, 0.0]),
        Label::Soft | Label::Sampled => (beliefs.probability(chosen, rejected), rates),
    };
    Ok(Ordered { chosen, rejected, p, win_rates: Some(rates) })
}

/// Builds the example of the answers `members`, in this order; `seen` are all answers that its target depends on.
pub(crate) fn example(judged: &Judged<'_>, members: &[usize], seen: &[usize], target: Target) -> Example {
    let Judged { rollout, beliefs, judge_hash, .. } = judged;
    let completions: Vec<&Completion> = seen.iter().map(|i| &rollout.completions[*i]).collect();
    let indices: Vec<u8> = completions.iter().flat_map(|c| c.sample_index.to_le_bytes()).collect();
    let member = |&i: &usize| answer(&rollout.completions[i], beliefs.scores().get(i).copied());
    Example {
        id: RecordId::derive(&[b"example", rollout.id.as_bytes(), &indices, judge_hash.as_bytes()]),
        prompt_ids: rollout.prompt_ids.clone(),
        answers: members.iter().map(member).collect(),
        target,
        rationale: None,
        weight: 1.0,
        policy_version: policy_version(&completions),
        source: ExampleSource::Online,
        judge_hash: (*judge_hash).to_owned(),
    }
}

/// Writes the reason why one answer is better than another, if the run trains on reasons and the judge wrote about both.
fn rationale(judged: &Judged<'_>, chosen: usize, rejected: usize) -> Option<Rationale> {
    let question = judged.rules.rationale.as_ref()?;
    let (better, worse) = (judged.notes.get(chosen)?, judged.notes.get(rejected)?);
    let [first, second] = [chosen, rejected].map(|i| &judged.rollout.completions[i].text);
    let prompt = match &judged.rollout.task.prompt {
        Prompt::Text(text) => Prompt::Text(format!("{text}{first}\n\n{text}{second}\n\n{question}")),
        Prompt::Chat(chat) => {
            let asked = format!("First answer:\n{first}\n\nSecond answer:\n{second}\n\n{question}");
            // Two messages of one role in a row are refused by many templates.
            let mut chat = chat.clone();
            match chat.messages.last_mut().filter(|last| last.role() == "user") {
                Some(last) => *last = last.clone().followed_by(&format!("\n\n{asked}")),
                None => chat.messages.push(Message::new("user", asked)),
            }
            Prompt::Chat(chat)
        }
    };
    Some(Rationale { prompt, text: format!(" The first {better}. The second {worse}.") })
}

fn answer(completion: &Completion, score: Option<f64>) -> Answer {
    Answer {
        player: completion.player,
        token_ids: completion.token_ids.clone(),
        behavior_logprobs: completion.logprobs.clone(),
        finish: completion.finish,
        score,
    }
}

/// Returns the oldest version among the answers whose staleness is bounded (R5); of all, if no such player answered.
fn policy_version(completions: &[&Completion]) -> u64 {
    let bounded = completions
        .iter()
        .filter(|c| matches!(c.player, Player::Policy | Player::Mixture | Player::Styled | Player::Revised));
    let oldest = bounded.map(|c| c.model.version).min();
    oldest.or_else(|| completions.iter().map(|c| c.model.version).min()).unwrap_or_default()
}

fn most_frequent(refused: &BTreeMap<DropReason, u32>) -> DropReason {
    // Without any pair there was nothing to contrast, which `candidates` has counted as filtered.
    refused.iter().rev().max_by_key(|(_, count)| **count).map_or(DropReason::Filtered, |(reason, _)| *reason)
}
