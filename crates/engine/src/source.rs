//! Whose distribution answers are drawn from: one model's, or for some of them a mixture of two, with a KV cache each.

use std::sync::Arc;

use joust_core::ModelRef;
use joust_model::{KvCache, Llama, ModelConfig};
use parking_lot::MutexGuard;
use tch::Tensor;

use crate::Snapshot;

/// Whose next-token distribution answers are drawn from.
#[derive(Debug, Clone)]
pub enum Source {
    /// One model's.
    Model(Arc<Snapshot>),
    /// The policy's, and for some answers the per-token geometric mixture `softmax(((1 − coef)·z_policy + coef·z_reference)/T)` (NLHF,
    /// <https://arxiv.org/abs/2312.00886>): mixing logits is mixing log-probs, because the normalisers cancel.
    ///
    /// Both kinds of answers are decoded together, so that the policy is read once a token.
    Mixture {
        /// Gives z_policy.
        policy: Arc<Snapshot>,
        /// Gives z_reference; of the same vocabulary.
        reference: Arc<Snapshot>,
        /// Weight of the reference, in [0, 1].
        coef: f64,
        /// Sample indices that the mixture answers; the others are the policy's.
        mixed: Vec<u32>,
    },
}

impl Source {
    /// Returns the shape that prompts are checked against; of a mixture the policy's.
    pub fn config(&self) -> &ModelConfig {
        self.first().config()
    }

    /// Returns the weights that answers are recorded under; of a mixture the policy's.
    pub fn id(&self) -> &ModelRef {
        &self.first().id
    }

    fn first(&self) -> &Arc<Snapshot> {
        match self {
            Self::Model(model) | Self::Mixture { policy: model, .. } => model,
        }
    }

    /// Returns whether the second model takes part in an answer.
    pub(crate) fn mixes(&self, sample_index: u32) -> bool {
        matches!(self, Self::Mixture { mixed, .. } if mixed.contains(&sample_index))
    }

    /// Locks the models for one batch.
    pub(crate) fn lock(&self) -> Models<'_> {
        let second = match self {
            // One snapshot mixed with itself is itself; it also has one lock, which must not be taken twice.
            Self::Mixture { policy, reference, coef, mixed }
                if *coef > 0.0 && !mixed.is_empty() && !Arc::ptr_eq(policy, reference) =>
            {
                Some((reference.lock(), *coef))
            }
            _ => None,
        };
        Models { first: self.first().lock(), second }
    }
}

/// The locked models of a batch.
pub(crate) struct Models<'a> {
    pub(crate) first: MutexGuard<'a, Llama>,
    /// With the weight of its logits.
    second: Option<(MutexGuard<'a, Llama>, f64)>,
}

/// The second model, which reads some of the rows.
struct Second<'a> {
    model: &'a Llama,
    coef: f64,
    cache: KvCache,
    /// Which rows of the batch its cache's rows are, ascending, `[R]`, int64.
    rows: Vec<i64>,
}

/// The models of a batch, decoding the same tokens side by side.
pub(crate) struct Readers<'a> {
    model: &'a Llama,
    cache: KvCache,
    second: Option<Second<'a>>,
}

/// The prompts of a batch as tensors, and the answers that they get.
pub(crate) struct Prompts<'a> {
    /// `[P, T]`, padded on the left.
    pub(crate) ids: &'a Tensor,
    /// Padding of each, `[P]`.
    pub(crate) padding: &'a Tensor,
    /// Tokens that the caches hold at most.
    pub(crate) capacity: i64,
    /// Prompt of each answer, and whether both models give it.
    pub(crate) answers: &'a [(i64, bool)],
}

impl<'a> Readers<'a> {
    /// Reads each prompt once and returns the logits of the first token of every answer, `[B, V]`.
    pub(crate) fn prefill(models: &'a Models<'_>, prompts: &Prompts<'_>) -> (Self, Tensor) {
        let device = models.first.device();
        let read = |model: &Llama, answers: &[i64]| {
            let (cache, logits) = model.prefill(prompts.ids, prompts.padding, prompts.capacity);
            let answers = Tensor::from_slice(answers).to_device(device);
            (cache.select(&answers), logits.index_select(0, &answers))
        };
        let every: Vec<i64> = prompts.answers.iter().map(|(prompt, _)| *prompt).collect();
        let (cache, logits) = read(&models.first, &every);
        let rows: Vec<i64> = (0i64..).zip(prompts.answers).filter(|(_, (_, both))| *both).map(|(row, _)| row).collect();
        let Some((model, coef)) = models.second.as_ref().filter(|_| !rows.is_empty()) else {
            return (Self { model: &models.first, cache, second: None }, logits);
        };
        let own: Vec<i64> = rows.iter().map(|row| every[*row as usize]).collect();
        let (own_cache, own) = read(model, &own);
        let second = Second { model, coef: *coef, cache: own_cache, rows };
        let logits = second.mix(logits, &own);
        (Self { model: &models.first, cache, second: Some(second) }, logits)
    }

    /// Reads one token a row, `[B]`, and returns the logits of the next, `[B, V]`.
    pub(crate) fn decode(&mut self, ids: &Tensor) -> Tensor {
        let logits = self.model.decode(ids, &mut self.cache);
        let Some(second) = self.second.as_mut().filter(|second| !second.rows.is_empty()) else { return logits };
        let own = second.model.decode(&ids.index_select(0, &second.index(ids)), &mut second.cache);
        second.mix(logits, &own)
    }

    /// Keeps the given rows, ascending.
    pub(crate) fn select(&mut self, kept: &[i64]) {
        let device = self.model.device();
        let tensor = |rows: &[i64]| Tensor::from_slice(rows).to_device(device);
        self.cache = self.cache.select(&tensor(kept));
        let Some(second) = &mut self.second else { return };
        let place = |row: &i64| second.rows.binary_search(row).ok().map(|place| place as i64);
        let (rows, places): (Vec<i64>, Vec<i64>) =
            (0i64..).zip(kept).filter_map(|(new, row)| Some((new, place(row)?))).unzip();
        second.cache = second.cache.select(&tensor(&places));
        second.rows = rows;
    }
}

impl Second<'_> {
    /// Returns its rows of the batch on the device of a tensor, `[R]`.
    fn index(&self, like: &Tensor) -> Tensor {
        Tensor::from_slice(&self.rows).to_device(like.device())
    }

    /// Mixes its logits `[R, V]` into those of the batch `[B, V]`.
    fn mix(&self, logits: Tensor, own: &Tensor) -> Tensor {
        let index = self.index(&logits);
        let mixed = (1.0 - self.coef) * logits.index_select(0, &index) + self.coef * own;
        logits.index_copy(0, &index, &mixed.to_kind(logits.kind()))
    }
}
