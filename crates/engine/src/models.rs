//! Published weights: immutable snapshots that samplers adopt between requests.

use std::sync::Arc;

use joust_core::{ModelRef, ModelSet};
use joust_model::{Adapter, Llama, LoraConfig, ModelConfig, Weights};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

/// Weights for sampling, never written again.
#[derive(Debug)]
pub struct Snapshot {
    /// Which weights they are.
    pub id: ModelRef,
    config: ModelConfig,
    lora: Option<LoraConfig>,
    model: Mutex<Llama>,
    /// The decoder without an adapter, on the same memory: another adapter can be put on it while the model is at work.
    base: Mutex<Llama>,
}

impl Snapshot {
    /// Copies weights into a decoder of their own in `kind`, so that training may go on.
    ///
    /// # Errors
    /// [`joust_model::Error`] if a tensor is missing or cannot be read.
    pub fn new(config: &ModelConfig, weights: &Weights, id: ModelRef) -> joust_model::Result<Self> {
        Self::owned(config, &weights.snapshot(config.dtype.kind()), id)
    }

    /// As [`Self::new`], of weights that nobody else writes and that are in the config's kind.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn owned(config: &ModelConfig, weights: &Weights, id: ModelRef) -> joust_model::Result<Self> {
        Ok(Self::of(Llama::for_sampling(config, weights)?, id))
    }

    /// Makes a snapshot on the memory of this one with an adapter that nobody else writes, instead of its own if it has one.
    ///
    /// # Errors
    /// [`joust_model::Error`] if the adapter lacks a tensor.
    pub fn with_adapter(&self, adapter: &Adapter, id: ModelRef) -> joust_model::Result<Self> {
        Ok(Self::of(tch::no_grad(|| self.base.lock().with_adapter(adapter, None))?, id))
    }

    fn of(model: Llama, id: ModelRef) -> Self {
        let (config, lora, base) = (model.config().clone(), model.lora().cloned(), Mutex::new(model.base()));
        Self { id, config, lora, model: Mutex::new(model), base }
    }

    /// Returns the shape of the adapter that is added, if one is.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// Returns shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Waits, blocking the thread, for the decoder: libtorch's tensors are not for two threads at once.
    pub fn lock(&self) -> MutexGuard<'_, Llama> {
        self.model.lock()
    }
}

/// What the learner published last.
#[derive(Debug, Clone)]
pub struct Published {
    /// Identities of all weights of the run.
    pub set: ModelSet,
    /// The policy's weights.
    pub policy: Arc<Snapshot>,
    /// The weights the policy is held to.
    pub reference: Arc<Snapshot>,
    /// The averaged policy, where the run keeps one.
    pub ema: Option<Arc<Snapshot>>,
    /// The policy of one publish ago, where the run keeps it.
    pub past: Option<Arc<Snapshot>>,
}

/// Where the learner publishes and samplers look; a late reader skips to the newest.
#[derive(Debug, Clone)]
pub struct ModelStore(watch::Sender<Published>);

impl ModelStore {
    /// Starts with the given models.
    pub fn new(first: Published) -> Self {
        Self(watch::Sender::new(first))
    }

    /// Replaces what samplers see, whole.
    pub fn publish(&self, published: Published) {
        self.0.send_replace(published);
    }

    /// Returns what was published last.
    pub fn current(&self) -> Published {
        self.0.borrow().clone()
    }

    /// Returns a receiver that wakes at each publish.
    pub fn watch(&self) -> watch::Receiver<Published> {
        self.0.subscribe()
    }
}
