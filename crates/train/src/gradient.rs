//! Policy gradients on the tokens of answers.

use joust_core::{Example, Target};
use joust_losses::{
    GradientLoss, TokenLogps, gae, grpo_advantages, grpo_loss, nash_md_loss, ppo_loss, rewards_to_go, rloo_advantages,
    rloo_loss, token_rewards, value_loss, whiten,
};
use tch::{Kind, Tensor};

use crate::{
    Ranks, Result,
    single::rewards,
    sums::Sums,
    trainer::{Known, Micro, Prepared},
};

/// Spread of rewards below which nothing but the rounding of log-probs tells answers of equal scores apart: an optimizer that
/// divides by the gradient's own size would make whole steps of it.
const ROUNDING: f64 = 1e-3;

/// Returns whether the judge tells no answer from another, and the penalties for leaving the reference do so by rounding only.
fn are_tied(scores: &[f64], rewards: &[f64]) -> bool {
    let (low, high) = rewards.iter().fold((f64::MAX, f64::MIN), |(low, high), r| (low.min(*r), high.max(*r)));
    scores.windows(2).all(|two| two[0] == two[1]) && high - low < ROUNDING
}

/// Says what an example lacks for a policy gradient.
pub(crate) fn problem(loss: &GradientLoss, example: &Example) -> Option<String> {
    let answers = &example.answers;
    match (&example.target, loss) {
        (Target::Opponent { .. }, GradientLoss::NashMd { .. }) if answers.len() == 1 => {}
        (Target::Group { win_rates }, _) if win_rates.len() == answers.len() => {}
        _ => return Some(format!("the loss {} cannot read its target {:?}", loss.name(), example.target)),
    }
    if matches!(loss, GradientLoss::NashMd { .. }) == matches!(example.target, Target::Group { .. }) {
        return Some(format!("the loss {} cannot read its target {:?}", loss.name(), example.target));
    }
    let known = answers.iter().all(|answer| answer.behavior_logprobs.len() == answer.token_ids.len());
    (!known).then(|| "its answers have no log-probs of their sampling, which a policy gradient needs".to_owned())
}

/// Returns log π_old − log π_ref of each token of an answer, in nats.
fn log_ratios(prepared: &Prepared, answer: usize) -> Vec<f64> {
    let old = &prepared.example.answers[answer].behavior_logprobs;
    let reference = &prepared.known[answer].reference;
    old.iter().zip(reference).map(|(old, reference)| f64::from(old - reference)).collect()
}

/// Gives every token of an answer the answer's advantage.
fn spread(known: &mut [Known], advantages: &[f64]) {
    for (known, advantage) in known.iter_mut().zip(advantages) {
        known.advantages = vec![*advantage as f32; known.reference.len()];
    }
}

/// Computes the advantages of a whole step.
pub(crate) fn advantages(loss: &GradientLoss, step: &mut [Vec<Prepared>], ranks: &Ranks) -> Result<()> {
    match *loss {
        GradientLoss::NashMd { .. } => {} // its advantage holds the current policy's log-ratio
        GradientLoss::Rloo { beta, .. } => {
            for prepared in step.iter_mut().flatten() {
                let scores = rewards(&prepared.example);
                let held = |(k, score): (usize, &f64)| score - beta * log_ratios(prepared, k).iter().sum::<f64>();
                let rewards: Vec<f64> = scores.iter().enumerate().map(held).collect();
                let advantages = rloo_advantages(&rewards);
                let tied = are_tied(&scores, &rewards);
                spread(&mut prepared.known, &if tied { vec![0.0; scores.len()] } else { advantages });
            }
        }
        GradientLoss::Grpo { .. } => {
            for prepared in step.iter_mut().flatten() {
                let advantages = grpo_advantages(&rewards(&prepared.example));
                spread(&mut prepared.known, &advantages);
            }
        }
        GradientLoss::ReinforcePlusPlus { beta, .. } => {
            let to_go = |rewards: &[f64], _: &[f64]| (rewards_to_go(rewards, 1.0), Vec::new());
            by_token(beta, step, &to_go, ranks)?;
        }
        GradientLoss::Ppo { beta, gamma, lambda, .. } => {
            by_token(beta, step, &|rewards, values| gae(rewards, values, gamma, lambda), ranks)?;
        }
    }
    Ok(())
}

/// Advantages and returns from the rewards and values of one answer's tokens.
type Estimate<'a> = &'a dyn Fn(&[f64], &[f64]) -> (Vec<f64>, Vec<f64>);

/// Computes advantages and returns from the rewards and values of each answer's tokens, and whitens the advantages over all tokens
/// of the step.
fn by_token(beta: f64, step: &mut [Vec<Prepared>], estimate: Estimate<'_>, ranks: &Ranks) -> Result<()> {
    let (mut all, mut scores) = (Vec::new(), Vec::new());
    for prepared in step.iter_mut().flatten() {
        for (k, reward) in rewards(&prepared.example).into_iter().enumerate() {
            scores.push(reward);
            let rewards = token_rewards(&log_ratios(prepared, k), beta, reward);
            let known = &mut prepared.known[k];
            let values: Vec<f64> = known.values.iter().map(|value| f64::from(*value)).collect();
            let (advantages, returns) = estimate(&rewards, &values);
            known.returns = returns.into_iter().map(|value| value as f32).collect();
            all.extend(advantages);
        }
    }
    let ((all, mine), (scores, _)) = (ranks.join(all)?, ranks.join(scores)?);
    let whitened = if are_tied(&scores, &all) { vec![0.0; all.len()] } else { whiten(&all) };
    let mut rest = whitened.into_iter().skip(mine.start);
    for known in step.iter_mut().flatten().flat_map(|prepared| &mut prepared.known) {
        known.advantages = rest.by_ref().take(known.reference.len()).map(|advantage| advantage as f32).collect();
    }
    Ok(())
}

/// Computes the micro-batch's share of the step's loss; carries the gradient.
///
/// The step's loss is a mean over answers of sums over tokens (`nash_md`, `rloo`), of means over tokens (`grpo`), or a mean over
/// all tokens (`reinforce++`, `ppo`).
pub(crate) fn loss(loss: &GradientLoss, micro: &Micro<'_>, sums: &mut Sums) -> Result<Tensor> {
    let sequences = micro.sequences;
    let old: Vec<f32> = micro
        .examples()
        .flat_map(|example| &example.answers)
        .flat_map(|answer| answer.behavior_logprobs.iter().copied())
        .collect();
    let old = Tensor::from_slice(&old).to_device(micro.logprobs.device());
    let reference = micro.tokens(|known| &known.reference);
    let (policy, mask) = (sequences.padded(micro.logprobs), sequences.mask());
    let (old_table, reference_table) = (sequences.padded(&old), sequences.padded(&reference));
    let inputs = TokenLogps::new(&policy, &mask).with_reference(&reference_table).with_old(&old_table);
    record(micro, sums, &old);
    let totals = micro.totals;
    let (output, total) = match *loss {
        GradientLoss::NashMd { beta } => {
            let p = micro.column(micro.examples().map(p_of));
            sums.add("rewards/probabilities", &p);
            sums.add("rewards/accuracies", &p.gt(0.5).to_kind(Kind::Float));
            (nash_md_loss(&inputs, &p, beta)?, totals.answers)
        }
        GradientLoss::Rloo { epsilon, .. } => (rloo_loss(&inputs, &first_advantages(micro), epsilon)?, totals.answers),
        GradientLoss::Grpo { beta, epsilon } => {
            (grpo_loss(&inputs, &first_advantages(micro), epsilon, beta)?, totals.answers)
        }
        GradientLoss::ReinforcePlusPlus { epsilon, .. } | GradientLoss::Ppo { epsilon, .. } => {
            let advantages = sequences.padded(&micro.tokens(|known| &known.advantages));
            (ppo_loss(&inputs, &advantages, epsilon)?, totals.tokens)
        }
    };
    sums.add("policy/clipfrac_avg", &output.clipped);
    Ok((output.per_answer * answer_weights(micro)).sum(Kind::Float) / total)
}

/// Computes the micro-batch's share of `vf_coef` times the critic's loss; `values` `[N]` carries the gradient.
pub(crate) fn critic_loss(loss: &GradientLoss, micro: &Micro<'_>, values: &Tensor, sums: &mut Sums) -> Result<Tensor> {
    let GradientLoss::Ppo { epsilon_value, vf_coef, .. } = *loss else { return Ok(values.sum(Kind::Float) * 0.0) };
    let table = |values: &Tensor| micro.sequences.padded(values);
    let (old, returns) = (table(&micro.tokens(|k| &k.values)), table(&micro.tokens(|k| &k.returns)));
    let per_answer = value_loss(&table(values), [&old, &returns, &micro.sequences.mask()], epsilon_value)?;
    let loss = (per_answer * answer_weights(micro)).sum(Kind::Float) / micro.totals.tokens;
    sums.add_part("loss/value_avg", loss.double_value(&[]));
    Ok(loss * vf_coef)
}

/// Returns the advantage of each answer where all its tokens have the same, `[B]`.
fn first_advantages(micro: &Micro<'_>) -> Tensor {
    let first = |known: &Known| f64::from(known.advantages.first().copied().unwrap_or_default());
    micro.column(micro.batch.iter().flat_map(|prepared| &prepared.known).map(first))
}

fn p_of(example: &Example) -> f64 {
    if let Target::Opponent { p } = example.target { p } else { 0.5 }
}

/// Returns the weight of the example of each answer, `[B]`.
fn answer_weights(micro: &Micro<'_>) -> Tensor {
    micro.column(micro.examples().flat_map(|example| std::iter::repeat_n(example.weight, example.answers.len())))
}

/// Adds one micro-batch to the sums of the step, under TRL's names.
fn record(micro: &Micro<'_>, sums: &mut Sums, old: &Tensor) {
    let policy = micro.logprobs.detach();
    micro.record_kl(sums);
    sums.add("objective/entropy", &-micro.sequences.sums(&policy));
    sums.add("val/ratio", &(&policy - old).exp());
}
