//! Losses on the ranked answers of a prompt.

use joust_core::{Answer, Example, Player, Target};
use joust_losses::{ListLogps, ListLoss};
use tch::{Kind, Tensor};

use crate::{Result, sums::Sums, trainer::Micro};

/// Says what an example lacks to be a list.
pub(crate) fn problem(loss: &ListLoss, example: &Example) -> Option<String> {
    let answers = example.answers.len();
    match &example.target {
        Target::Group { win_rates } if win_rates.len() == answers && answers > 1 => None,
        target => Some(format!("the loss {} cannot read {answers} answers with the target {target:?}", loss.name())),
    }
}

/// Returns what ranks each answer: PRO reads rewards, the others win rates.
fn labels(loss: &ListLoss, example: &Example) -> Vec<f64> {
    let Target::Group { win_rates } = &example.target else { return Vec::new() };
    let rewards = || example.answers.iter().map(|answer| answer.score).collect::<Option<Vec<f64>>>();
    match loss {
        ListLoss::Pro { .. } => rewards().unwrap_or_else(|| win_rates.clone()),
        _ => win_rates.clone(),
    }
}

fn from_reference(answer: &Answer) -> f64 {
    f64::from(u8::from(answer.player == Player::Reference))
}

/// Computes the micro-batch's share of the mean over all prompts of the step; carries the gradient.
pub(crate) fn loss(loss: &ListLoss, micro: &Micro<'_>, sums: &mut Sums) -> Result<Tensor> {
    let width = micro.examples().map(|example| example.answers.len()).max().unwrap_or(1) as i64;
    let row = |(row, example): (i64, &Example)| {
        (0..example.answers.len() as i64).map(move |k| row * width + k).collect::<Vec<_>>()
    };
    let slots: Vec<i64> = (0i64..).zip(micro.examples()).flat_map(row).collect();
    let slots = Tensor::from_slice(&slots).to_device(micro.logprobs.device());
    let table = |values: &Tensor| {
        let flat = Tensor::zeros([micro.batch.len() as i64 * width], (values.kind(), values.device()));
        flat.index_copy(0, &slots, values).view([-1, width]) // [prompts, K]
    };
    let policy = micro.sequences.sums(micro.logprobs);
    let reference = micro.reference().map(|tokens| micro.sequences.sums(&tokens));
    let tokens = micro.column(micro.sequences.lengths().iter().map(|tokens| *tokens as f64));
    let labels = micro.column(micro.examples().flat_map(|example| labels(loss, example)));
    let mask = table(&tokens.ones_like());
    let tables = [&policy, &tokens, &labels].map(table);
    let held_to = reference.as_ref().map(table);
    let given = micro.column(micro.examples().flat_map(|example| &example.answers).map(from_reference));
    let given = table(&given);
    let mut inputs = ListLogps::new(&tables[0], &mask, &tables[2]).with_tokens(&tables[1]).with_from_reference(&given);
    if let Some(held_to) = &held_to {
        inputs = inputs.with_reference(held_to);
    }
    let output = loss.compute(&inputs)?;
    micro.record_kl(sums);
    sums.add("objective/entropy", &-policy.detach());
    sums.add("rewards/best", &output.rewards.select(1, 0));
    let weight = micro.column(micro.examples().map(|example| example.weight));
    Ok((output.per_list * weight).sum(Kind::Float) / micro.totals.examples)
}
