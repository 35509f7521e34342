//! Losses on preference pairs.

use joust_core::{Example, Player, Target};
use joust_losses::{LossOutput, MaskedSums, PairLogps, PairLoss};
use joust_model::{Llama, SequenceBatch};
use tch::{Kind, Tensor};

use crate::{Result, masks, sums::Sums, trainer::Micro};

/// Says what an example lacks to be a pair.
pub(crate) fn problem(loss: &PairLoss, example: &Example) -> Option<String> {
    let answers = example.answers.len();
    let scored = example.answers.iter().all(|answer| answer.score.is_some());
    match example.target {
        Target::Pair { .. } if answers != 2 => Some(format!("it has {answers} answers, a pair loss needs 2")),
        Target::Pair { .. } if loss.needs_scores() && !scored => {
            Some("its answers have no scores, which the loss needs (feedback.ask = \"score\")".to_owned())
        }
        Target::Pair { .. } => None,
        _ => Some(format!("it is no pair, which the loss {} needs", loss.name())),
    }
}

fn p_of(example: &Example) -> f64 {
    if let Target::Pair { p, .. } = example.target { p } else { 1.0 }
}

/// Returns the win rates of the answer on one side, if every example has them.
fn win_rates(micro: &Micro<'_>, side: usize) -> Option<Tensor> {
    let rate = |example: &Example| match example.target {
        Target::Pair { win_rates, .. } => win_rates.map(|rates| rates[side]),
        _ => None,
    };
    let rates: Vec<f64> = micro.examples().map(rate).collect::<Option<_>>()?;
    Some(micro.column(rates.into_iter()))
}

/// What only some losses or steps read, `[pairs]` each.
struct Extras {
    p: Option<Tensor>,
    scores: Option<[Tensor; 2]>,
    win_rates: Option<[Tensor; 2]>,
    matched: Option<[Tensor; 2]>,
    signs: Option<[Tensor; 2]>,
    token_terms: Option<Tensor>,
    tails: Option<[[Tensor; 2]; 2]>,
    masked: Option<[[Tensor; 2]; 3]>,
}

impl Extras {
    /// Gathers what is there and read.
    fn of(loss: &PairLoss, micro: &Micro<'_>, sums: &mut Sums) -> Self {
        let examples = || micro.examples();
        let sides = |values: &[[f64; 2]]| [0, 1].map(|i: usize| micro.column(values.iter().map(|values| values[i])));
        let scores = |i: usize| micro.column(examples().map(|e| e.answers[i].score.unwrap_or_default()));
        let rates = [0, 1].map(|i| win_rates(micro, i));
        Self {
            p: examples().any(|example| p_of(example) != 1.0).then(|| micro.column(examples().map(p_of))),
            scores: loss.needs_scores().then(|| [0, 1].map(scores)),
            win_rates: if let [Some(better), Some(worse)] = rates { Some([better, worse]) } else { None },
            matched: loss.needs_matching().then(|| sides(&micro.coupled.matched)),
            signs: (!micro.coupled.signs.is_empty()).then(|| sides(&micro.coupled.signs)),
            token_terms: micro.token_terms.as_ref().map(|terms| side(&micro.sequences.means(terms), 1)),
            tails: tails(loss, micro),
            masked: masks::sums(micro, sums).map(|sums| sums.map(|sums| [0, 1].map(|i| side(&sums, i)))),
        }
    }

    fn add_to<'a>(&'a self, mut inputs: PairLogps<'a>) -> PairLogps<'a> {
        if let Some(p) = &self.p {
            inputs = inputs.with_p(p);
        }
        if let Some([chosen, rejected]) = &self.scores {
            inputs = inputs.with_scores(chosen, rejected);
        }
        if let Some([better, worse]) = &self.win_rates {
            inputs = inputs.with_win_rates(better, worse);
        }
        if let Some([chosen, rejected]) = &self.matched {
            inputs = inputs.with_matched(chosen, rejected);
        }
        if let Some([chosen, rejected]) = &self.signs {
            inputs = inputs.with_signs(chosen, rejected);
        }
        if let Some(terms) = &self.token_terms {
            inputs = inputs.with_token_terms(terms);
        }
        if let Some([policy, reference]) = &self.tails {
            inputs = inputs.with_tails(policy.each_ref(), reference.each_ref());
        }
        if let Some([ratios, divergences, masks]) = &self.masked {
            let [ratios, divergences, masks] = [ratios, divergences, masks].map(|sides| sides.each_ref());
            inputs = inputs.with_masked(MaskedSums { ratios, divergences, masks });
        }
        inputs
    }
}

/// Takes the answers of one side out of `[2·pairs]`.
fn side(values: &Tensor, side: i64) -> Tensor {
    values.view([-1, 2]).select(1, side).contiguous()
}

/// Computes the micro-batch's share of the mean over all pairs of the step; carries the gradient.
pub(crate) fn loss(loss: &PairLoss, micro: &Micro<'_>, sums: &mut Sums) -> Result<Tensor> {
    let both = |values: &Tensor| [0, 1].map(|i| side(values, i));
    let policy = both(&micro.sequences.sums(micro.logprobs));
    let reference = micro.reference().map(|tokens| both(&micro.sequences.sums(&tokens)));
    let column = |value: &dyn Fn(&Example) -> f64| micro.column(micro.examples().map(value));
    let lengths = [0, 1].map(|i: usize| column(&|e| e.answers[i].token_ids.len() as f64));
    let from_reference =
        [0, 1].map(|i: usize| column(&|e| f64::from(u8::from(e.answers[i].player == Player::Reference))));
    let mut weight = column(&|e| e.weight);
    if let Some(aligned) = &micro.aligned {
        weight *= side(aligned, 0) * side(aligned, 1);
        sums.add("weights/wpo", &weight);
    }
    let mut inputs = PairLogps::new(&policy[0], &policy[1])
        .with_tokens(&lengths[0], &lengths[1])
        .with_from_reference(&from_reference[0], &from_reference[1])
        .with_weight(&weight);
    if let Some([chosen, rejected]) = &reference {
        inputs = inputs.with_reference(chosen, rejected);
    }
    if let Some(terms) = &micro.degree_terms {
        inputs = inputs.with_degree_terms(terms);
    }
    let extras = Extras::of(loss, micro, sums);
    let output = loss.compute(&extras.add_to(inputs))?;
    record(sums, &output, &policy, reference.as_ref());
    micro.record_kl(sums);
    Ok(output.per_pair.sum(Kind::Float) / micro.totals.examples)
}

/// Sums what lies behind the shorter answer of each pair, of policy and reference, chosen and rejected, if the loss reads it.
fn tails(loss: &PairLoss, micro: &Micro<'_>) -> Option<[[Tensor; 2]; 2]> {
    if !matches!(loss, PairLoss::LdDpo { .. }) {
        return None;
    }
    let behind = |pair: &[usize]| {
        let shared = pair[0].min(pair[1]);
        pair.iter().flat_map(move |tokens| (0..*tokens).map(move |t| if t < shared { 0.0 } else { 1.0 })).collect()
    };
    let lengths = micro.sequences.lengths();
    let mask = micro.column(lengths.chunks_exact(2).flat_map(|pair| -> Vec<f64> { behind(pair) }));
    let reference = micro.tokens(|known| &known.reference);
    let sides = |values: &Tensor| {
        let sums = micro.sequences.sums(&(values * &mask)).view([-1, 2]);
        [0, 1].map(|side| sums.select(1, side).contiguous())
    };
    Some([sides(micro.logprobs), sides(&reference)])
}

/// Computes [`joust_losses::cringe_tokens`] of every completion token, float32 `[N]`; carries the gradient and holds all logits until it is
/// taken.
pub(crate) fn cringe_terms(model: &Llama, sequences: &SequenceBatch, rows: &Tensor, k: i64) -> Tensor {
    let logits = model.head(rows).to_kind(Kind::Float);
    joust_losses::cringe_tokens(&logits, sequences.targets(), k.min(logits.size()[1] - 1))
}

/// Adds one micro-batch to the sums of the step; names and meanings are those of TRL's online DPO trainer.
fn record(sums: &mut Sums, output: &LossOutput, policy: &[Tensor; 2], reference: Option<&[Tensor; 2]>) {
    let [chosen, rejected] = [0, 1].map(|side: usize| policy[side].detach());
    if let Some([reference, _]) = reference {
        sums.add("logps/ref_chosen", reference);
    }
    let entropy = -(&chosen + &rejected) / 2.0;
    let (better, worse) = (&output.chosen_rewards, &output.rejected_rewards);
    sums.add("objective/entropy", &entropy);
    sums.add("rewards/chosen", better);
    sums.add("rewards/rejected", worse);
    sums.add("rewards/margins", &(better - worse));
    sums.add("rewards/accuracies", &better.gt_tensor(worse).to_kind(Kind::Float));
    sums.add("logps/chosen", &chosen);
    sums.add("logps/rejected", &rejected);
}
