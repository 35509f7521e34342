//! Masks on tokens: what the reference computes at each of them, what makes masks of it, and the policy's divergence from it.

use joust_core::Example;
use joust_losses::{MaskHead, PairLoss, activation_masks, learned_masks};
use joust_model::{Llama, SequenceBatch};
use joust_torch::{Limits, divergence};
use tch::{Kind, Tensor};

use crate::{Objective, Prepared, Result, Trainer, sums::Sums, trainer::Micro};

/// What the reference computes at each of the N tokens of an example, answer after answer, without gradient.
#[derive(Debug)]
pub struct Traces {
    /// Last hidden states, `[N, H]`.
    rows: Tensor,
    /// What makes logits of them, `[V, H]`; shared by all examples.
    head: Tensor,
    masks: Masks,
}

/// What becomes a token's masks.
#[derive(Debug)]
enum Masks {
    /// The masks themselves, float32 `[N]`.
    Known(Tensor),
    /// The hidden states after every layer, `[N, L, H]`, which heads read.
    Learned(Tensor),
}

impl Clone for Traces {
    /// Shares the tensors.
    fn clone(&self) -> Self {
        let masks = match &self.masks {
            Masks::Known(masks) => Masks::Known(masks.shallow_clone()),
            Masks::Learned(states) => Masks::Learned(states.shallow_clone()),
        };
        Self { rows: self.rows.shallow_clone(), head: self.head.shallow_clone(), masks }
    }
}

/// Masks of every token of a micro-batch on its log-ratio and on its divergence, and the policy's divergence from the reference there in nats, float32
/// `[N]` each.
#[derive(Debug)]
pub(crate) struct Masked {
    reward: Tensor,
    divergence: Tensor,
    kl: Tensor,
}

/// Names the heads of one mask for both terms, or of one each.
pub(crate) fn names(heads: f64) -> &'static [&'static str] {
    if heads == 1.0 { &["mask"] } else { &["reward", "divergence"] }
}

impl Trainer {
    /// Computes log π_ref of every token and, where the loss weighs tokens, what else the reference computes at those of each example.
    pub(crate) fn held(
        &self,
        reference: &Llama,
        sequences: &SequenceBatch,
        examples: &[Example],
    ) -> Result<(Vec<f32>, Vec<Traces>)> {
        let loss = match &self.objective {
            Objective::Pair(loss) if loss.needs_masks() => loss,
            _ => return Ok((Vec::try_from(sequences.token_logprobs(reference))?, Vec::new())),
        };
        let (rows, states) = sequences.layer_rows(reference);
        let logprobs = Vec::try_from(sequences.logprobs_of(reference, &rows))?;
        let mut at = 0;
        let trace = |example: &Example| {
            let lengths: Vec<i64> = example.answers.iter().map(|answer| answer.token_ids.len() as i64).collect();
            let (first, tokens) = (at, lengths.iter().sum::<i64>());
            at += tokens;
            let states = states.narrow(0, first, tokens);
            let masks = match loss {
                PairLoss::SparsePo { .. } => Masks::Learned(states),
                _ => Masks::Known(by_answer(&states, &lengths)),
            };
            Traces { rows: rows.narrow(0, first, tokens), head: reference.head_weight().shallow_clone(), masks }
        };
        Ok((logprobs, examples.iter().map(trace).collect()))
    }

    /// Computes the masks of a micro-batch's tokens and the policy's divergence there; `None` where nothing reads or gives them.
    pub(crate) fn masked(&self, policy: &Llama, rows: &Tensor, batch: &[Prepared]) -> Result<Option<Masked>> {
        let traces: Vec<&Traces> = batch.iter().filter_map(|prepared| prepared.traces.as_ref()).collect();
        let Some(first) = traces.first().filter(|_| traces.len() == batch.len()) else { return Ok(None) };
        let Some([reward, divergence_mask]) = self.token_masks(&traces)? else { return Ok(None) };
        let held = Tensor::cat(&traces.iter().map(|trace| &trace.rows).collect::<Vec<_>>(), 0);
        let slice = Limits::default().slice;
        let kl = divergence([rows, policy.head_weight()], [&held, &first.head], slice)?;
        Ok(Some(Masked { reward, divergence: divergence_mask, kl }))
    }

    /// Computes the masks on log-ratios and on divergences; learned ones carry the gradient of their heads.
    fn token_masks(&self, traces: &[&Traces]) -> Result<Option<[Tensor; 2]>> {
        let (mut known, mut states) = (Vec::new(), Vec::new());
        for trace in traces {
            match &trace.masks {
                Masks::Known(masks) => known.push(masks),
                Masks::Learned(own) => states.push(own),
            }
        }
        if states.is_empty() {
            let masks = Tensor::cat(&known, 0);
            return Ok(Some([masks.shallow_clone(), masks]));
        }
        let (Objective::Pair(PairLoss::SparsePo { heads, .. }), Some(master)) = (&self.objective, &self.heads) else {
            return Ok(None);
        };
        let (states, weights) = (Tensor::cat(&states, 0), master.tensors()?);
        let learned = |name: &&str| -> Result<Tensor> {
            let get = |part: &str| weights.get(&format!("{name}.{part}"));
            let head = MaskHead { weight: get("weight")?, bias: get("bias")?, mixer: get("mixer")? };
            Ok(learned_masks(&states, &head, self.master.config.rms_norm_eps)?)
        };
        let masks = names(*heads).iter().map(learned).collect::<Result<Vec<_>>>()?;
        Ok(masks.first().zip(masks.last()).map(|(reward, divergence)| [reward, divergence].map(Tensor::shallow_clone)))
    }
}

/// Computes the masks of MaPO from hidden states `[N, L, H]`, for each answer by itself, float32 `[N]`.
fn by_answer(states: &Tensor, lengths: &[i64]) -> Tensor {
    let means = states.to_kind(Kind::Float).mean_dim(2i64, false, Kind::Float); // [N, L]
    let masks: Vec<Tensor> = means.split_with_sizes(lengths, 0).iter().map(activation_masks).collect();
    Tensor::cat(&masks, 0)
}

/// Sums by answer what the masks leave of log-ratios and of divergences, and the masks, `[B]` each.
pub(crate) fn sums(micro: &Micro<'_>, told: &mut Sums) -> Option<[Tensor; 3]> {
    let (masked, reference) = (micro.masked.as_ref()?, micro.reference()?);
    let Masked { reward, divergence, kl } = masked;
    told.add("masks/reward", &reward.detach());
    told.add("masks/divergence", &divergence.detach());
    told.add("masks/zero", &reward.eq(0.0).to_kind(Kind::Float));
    told.add("masks/kl", &kl.detach());
    let by_token = [reward * (micro.logprobs - reference), divergence * kl, reward + divergence];
    Some(by_token.map(|tokens| micro.sequences.sums(&tokens)))
}
