//! Answers with ever more of their content taken away, and how well a head tells by how much: see [`joust_losses::spo_loss`].

use joust_core::{Answer, Finish};
use joust_losses::{PairLoss, degree_losses};
use joust_model::{Llama, SequenceBatch};
use tch::{Kind, Tensor};

use crate::{Objective, Prepared, Result, Trainer, sums::Sums};

/// Stands behind each version, so that the state of its last token is one that predicts; it is never computed.
const BEHIND: u32 = 0;

/// One version of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    /// How much was taken away, 0 for nothing.
    degree: usize,
    /// What is left, never empty.
    token_ids: Vec<u32>,
}

/// Shortens an answer step by step, whole answer first.
///
/// Its content is the half of its tokens, rounded up, that surprises the reference most; an EOS stays, and so does the last token of all. Degree j takes away the
/// share j/D of that, the most surprising tokens first and of two alike the earlier one. A degree that takes away no more than the one before is left out.
///
/// # Arguments
/// * `reference` - log π_ref of each token.
fn versions(answer: &Answer, reference: &[f32], degrees: usize) -> Vec<Version> {
    let tokens = &answer.token_ids;
    let ends = usize::from(answer.finish == Finish::Eos);
    let body = tokens.len().saturating_sub(ends);
    let content = body.div_ceil(2).min(tokens.len().saturating_sub(1));
    let mut order: Vec<usize> = (0..body).collect();
    order.sort_by(|a, b| reference[*a].total_cmp(&reference[*b])); // stable
    let mut taken = None;
    let mut made = Vec::with_capacity(degrees + 1);
    for degree in 0..=degrees {
        let count = (degree * content + degrees / 2) / degrees; // j/D of it, rounded
        if taken == Some(count) {
            continue;
        }
        taken = Some(count);
        let gone = &order[..count];
        let left = tokens.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, id)| *id);
        made.push(Version { degree, token_ids: left.collect() });
    }
    made
}

impl Trainer {
    /// Computes how far the degree head is from telling what was taken away from both answers of each pair, in nats, float32 `[pairs]`; carries the
    /// gradient. `None` where the loss reads no such thing, or nothing says which tokens surprise.
    pub(crate) fn degree_terms(&self, policy: &Llama, batch: &[Prepared], told: &mut Sums) -> Result<Option<Tensor>> {
        let (Objective::Pair(PairLoss::Spo { degrees, .. }), Some(head)) = (&self.objective, &self.heads) else {
            return Ok(None);
        };
        let answers = || batch.iter().flat_map(|prepared| prepared.example.answers.iter().zip(&prepared.known));
        if answers().any(|(answer, known)| known.reference.len() != answer.token_ids.len()) {
            return Ok(None);
        }
        let families: Vec<Vec<Version>> =
            answers().map(|(answer, known)| versions(answer, &known.reference, *degrees as usize)).collect();
        let (states, own) = (last_states(policy, batch, &families), families.iter().flatten());
        let device = states.device();
        let degrees =
            Tensor::from_slice(&own.map(|version| version.degree as i64).collect::<Vec<_>>()).to_device(device);
        let weights = head.tensors()?;
        let [weight, bias] = [weights.get("degree.weight")?, weights.get("degree.bias")?];
        let losses = degree_losses(&states, [weight, bias], &degrees)?; // [M]
        record(told, &states, [weight, bias, &degrees, &losses]);
        // Each version counts 1 / (two answers x versions of its answer).
        let share = |(index, family): (usize, &Vec<Version>)| {
            let each = 0.5 / family.len() as f32;
            std::iter::repeat_n((index as i64 / 2, each), family.len())
        };
        let (pairs, shares): (Vec<i64>, Vec<f32>) = families.iter().enumerate().flat_map(share).unzip();
        let [pairs, shares] = [Tensor::from_slice(&pairs), Tensor::from_slice(&shares)].map(|t| t.to_device(device));
        let sums = Tensor::zeros([batch.len() as i64], (losses.kind(), device));
        Ok(Some(sums.index_add(0, &pairs, &(losses * shares))))
    }
}

/// Computes the last hidden state of each version's last token, `[M, H]`.
fn last_states(policy: &Llama, batch: &[Prepared], families: &[Vec<Version>]) -> Tensor {
    let prompts = batch.iter().flat_map(|prepared| [&prepared.example.prompt_ids; 2]);
    let of = |(prompt, family): (&Vec<u32>, &Vec<Version>)| -> Vec<(Vec<u32>, Vec<u32>)> {
        let behind = |version: &Version| [version.token_ids.as_slice(), &[BEHIND]].concat();
        family.iter().map(|version| (prompt.clone(), behind(version))).collect()
    };
    let sequences: Vec<(Vec<u32>, Vec<u32>)> = prompts.zip(families).flat_map(of).collect();
    let borrowed: Vec<(&[u32], &[u32])> = sequences.iter().map(|(p, c)| (p.as_slice(), c.as_slice())).collect();
    let packed = SequenceBatch::new(&borrowed, policy.device());
    let ends = packed.lengths().iter().scan(0, |end, tokens| {
        *end += *tokens as i64;
        Some(*end - 1)
    });
    let ends = Tensor::from_slice(&ends.collect::<Vec<_>>()).to_device(policy.device());
    packed.hidden_rows(policy).index_select(0, &ends)
}

/// Notes how well the head tells.
fn record(told: &mut Sums, states: &Tensor, [weight, bias, degrees, losses]: [&Tensor; 4]) {
    let _no_grad = tch::no_grad_guard();
    let guess = (states.to_kind(weight.kind()).matmul(&weight.tr()) + bias).argmax(1, false);
    told.add("degree/accuracy", &guess.eq_tensor(degrees).to_kind(Kind::Float));
    told.add("degree/loss", &losses.detach());
}

#[cfg(test)]
mod tests {
    use joust_core::Player;

    use super::*;

    fn answer(tokens: u32, finish: Finish) -> Answer {
        let token_ids = (10..10 + tokens).collect();
        Answer { player: Player::Policy, token_ids, behavior_logprobs: Vec::new(), finish, score: None }
    }

    fn left(answer: &Answer, reference: &[f32], degrees: usize) -> Vec<(usize, Vec<u32>)> {
        versions(answer, reference, degrees).into_iter().map(|v| (v.degree, v.token_ids)).collect()
    }

    #[test]
    fn the_most_surprising_tokens_go_first() {
        // Content: half of the six tokens before the EOS, at places 3, 1 and 4 by surprise.
        let reference = [-0.1, -5.0, -0.2, -9.0, -4.0, -0.3, -20.0];
        let found = left(&answer(7, Finish::Eos), &reference, 3);
        let whole = vec![10, 11, 12, 13, 14, 15, 16];
        let expected =
            [(0, whole), (1, vec![10, 11, 12, 14, 15, 16]), (2, vec![10, 12, 14, 15, 16]), (3, vec![10, 12, 15, 16])];
        assert_eq!(found, expected);
    }

    #[test]
    fn short_answers_have_fewer_degrees_and_never_end() {
        let two = left(&answer(3, Finish::Eos), &[-1.0, -2.0, -3.0], 3);
        assert_eq!(two, [(0, vec![10, 11, 12]), (2, vec![10, 12])], "half of two is one, which degree 2 takes");
        assert_eq!(left(&answer(1, Finish::Length), &[-1.0], 3), [(0, vec![10])]);
        assert_eq!(left(&answer(1, Finish::Eos), &[-1.0], 3), [(0, vec![10])]);
        assert_eq!(left(&answer(2, Finish::Eos), &[-1.0, -1.0], 1), [(0, vec![10, 11]), (1, vec![11])]);
    }
}
