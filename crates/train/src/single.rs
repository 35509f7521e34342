//! Losses on single answers.

use joust_core::{Example, Target};
use joust_losses::{SingleLogps, SingleLoss, dro_value_loss};
use tch::{Kind, Tensor};

use crate::{Result, sums::Sums, trainer::Micro};

/// Says what an example lacks for a loss on single answers.
pub(crate) fn problem(loss: &SingleLoss, example: &Example) -> Option<String> {
    match &example.target {
        Target::Group { win_rates } if win_rates.len() == example.answers.len() => None,
        target => Some(format!("the loss {} cannot read the target {target:?}", loss.name())),
    }
}

/// Returns what the judge gave each answer of a group: its score, or its win rate where there are none.
pub(crate) fn rewards(example: &Example) -> Vec<f64> {
    let Target::Group { win_rates } = &example.target else { return Vec::new() };
    example.answers.iter().zip(win_rates).map(|(answer, rate)| answer.score.unwrap_or(*rate)).collect()
}

/// Returns whether each answer is desirable: 1 with a win rate above one half, 0 below, one half between.
fn desirable(example: &Example) -> Vec<f64> {
    let Target::Group { win_rates } = &example.target else { return Vec::new() };
    win_rates
        .iter()
        .map(|rate| {
            if *rate > 0.5 {
                1.0
            } else if *rate < 0.5 {
                0.0
            } else {
                0.5
            }
        })
        .collect()
}

/// Returns the labels that a loss reads, `[B]`: rewards of mean 0 and variance 1 over the step, or who is desirable.
fn labels(loss: &SingleLoss, micro: &Micro<'_>) -> Tensor {
    let [mean, deviation] = micro.coupled.moments;
    match loss {
        SingleLoss::Dro { .. } => {
            micro.column(micro.examples().flat_map(rewards).map(|reward| (reward - mean) / deviation))
        }
        _ => micro.column(micro.examples().flat_map(desirable)),
    }
}

/// Returns the weight of the example of each answer, `[B]`.
fn weights(micro: &Micro<'_>) -> Tensor {
    micro.column(micro.examples().flat_map(|example| std::iter::repeat_n(example.weight, example.answers.len())))
}

/// Computes the micro-batch's share of the mean over all answers of the step; carries the gradient.
pub(crate) fn loss(loss: &SingleLoss, micro: &Micro<'_>, sums: &mut Sums) -> Result<Tensor> {
    let sequences = micro.sequences;
    let policy = sequences.sums(micro.logprobs);
    let reference = sequences.sums(&micro.tokens(|known| &known.reference));
    let labels = labels(loss, micro);
    let values = micro.batch.iter().flat_map(|prepared| &prepared.known).map(|known| known.values.first());
    let values = micro.column(values.map(|value| f64::from(value.copied().unwrap_or_default())));
    let inputs =
        SingleLogps::new(&policy, &reference, &labels).with_baseline(micro.coupled.baseline).with_values(&values);
    let output = loss.compute(&inputs)?;
    micro.record_kl(sums);
    sums.add("objective/entropy", &-policy.detach());
    if !matches!(loss, SingleLoss::Dro { .. }) {
        sums.add("rewards/chosen", &output.rewards.masked_select(&labels.gt(0.5)));
        sums.add("rewards/rejected", &output.rewards.masked_select(&labels.lt(0.5)));
        sums.add("rewards/baseline", &output.rewards.full_like(micro.coupled.baseline));
    }
    Ok((output.per_answer * weights(micro)).sum(Kind::Float) / micro.totals.answers)
}

/// Computes the micro-batch's share of the critic's loss; `values` `[N]` carries the gradient and holds V(x) at each answer's first token.
pub(crate) fn critic_loss(beta: f64, micro: &Micro<'_>, values: &Tensor, sums: &mut Sums) -> Result<Tensor> {
    let starts = micro.sequences.lengths().iter().scan(0i64, |at, tokens| {
        let start = *at;
        *at += *tokens as i64;
        Some(start)
    });
    let starts = Tensor::from_slice(&starts.collect::<Vec<_>>()).to_device(values.device());
    let policy = micro.sequences.sums(&micro.logprobs.detach());
    let reference = micro.sequences.sums(&micro.tokens(|known| &known.reference));
    let labels = labels(&SingleLoss::Dro { beta }, micro);
    let inputs = SingleLogps::new(&policy, &reference, &labels);
    let per_answer = dro_value_loss(&inputs, &values.index_select(0, &starts), beta)?;
    let loss = (per_answer * weights(micro)).sum(Kind::Float) / micro.totals.answers;
    sums.add_part("loss/value_avg", loss.double_value(&[]));
    Ok(loss)
}
