//! Whose distribution answers are drawn from: one model's, or a mixture of two with a KV cache each.

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
    /// The per-token geometric mixture `softmax(((1 − coef)·z_policy + coef·z_reference)/T)` (NLHF,
    /// <https://arxiv.org/abs/2312.00886>): mixing logits is mixing log-probs, because the normalisers cancel.
    Mixture {
        /// Gives z_policy.
        policy: Arc<Snapshot>,
        /// Gives z_reference; of the same vocabulary.
        reference: Arc<Snapshot>,
        /// Weight of the reference, in [0, 1].
        coef: f64,
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

    /// Returns the models with their weights in the mixture; one alone where the other adds nothing.
    fn parts(&self) -> Vec<(&Arc<Snapshot>, f64)> {
        match self {
            Self::Model(model) => vec![(model, 1.0)],
            Self::Mixture { policy, coef, .. } if *coef == 0.0 => vec![(policy, 1.0)],
            Self::Mixture { reference, coef, .. } if *coef == 1.0 => vec![(reference, 1.0)],
            // One snapshot mixed with itself is itself; it also has one lock, which must not be taken twice.
            Self::Mixture { policy, reference, .. } if Arc::ptr_eq(policy, reference) => vec![(policy, 1.0)],
            Self::Mixture { policy, reference, coef } => vec![(policy, 1.0 - coef), (reference, *coef)],
        }
    }

    /// Locks the models for one batch.
    pub(crate) fn lock(&self) -> Vec<(MutexGuard<'_, Llama>, f64)> {
        self.parts().into_iter().map(|(model, weight)| (model.lock(), weight)).collect()
    }
}

/// One locked model of a batch, its share of the logits, and its cache.
pub(crate) struct Reader<'a> {
    model: &'a Llama,
    weight: f64,
    cache: KvCache,
}

/// The models of a batch, decoding the same tokens side by side.
pub(crate) struct Readers<'a>(Vec<Reader<'a>>);

impl<'a> Readers<'a> {
    /// Reads prompts `[P, T]` and returns the logits after each, `[P, V]`; arguments as in [`Llama::prefill`].
    pub(crate) fn prefill(
        models: &'a [(MutexGuard<'_, Llama>, f64)],
        ids: &Tensor,
        padding: &Tensor,
        capacity: i64,
    ) -> (Self, Tensor) {
        let mut logits = None;
        let mut readers = Vec::with_capacity(models.len());
        for (model, weight) in models {
            let (cache, own) = model.prefill(ids, padding, capacity);
            logits = Some(mix(logits, own, *weight));
            readers.push(Reader { model, weight: *weight, cache });
        }
        (Self(readers), logits.expect("a source has a model"))
    }

    /// Reads one token a row, `[B]`, and returns the logits of the next, `[B, V]`.
    pub(crate) fn decode(&mut self, ids: &Tensor) -> Tensor {
        let step = |logits, reader: &mut Reader<'_>| {
            Some(mix(logits, reader.model.decode(ids, &mut reader.cache), reader.weight))
        };
        self.0.iter_mut().fold(None, step).expect("a source has a model")
    }

    /// Keeps the given rows of each cache.
    pub(crate) fn select(&mut self, rows: &Tensor) {
        for reader in &mut self.0 {
            reader.cache = reader.cache.select(rows);
        }
    }
}

/// Adds one model's logits to the mixture of those before it; weights sum to 1.
fn mix(before: Option<Tensor>, logits: Tensor, weight: f64) -> Tensor {
    match before {
        None if weight == 1.0 => logits,
        None => logits * weight,
        Some(before) => before + logits * weight,
    }
}
