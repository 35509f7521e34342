//! Trained weights: float32 masters, their optimizer and schedule, and the model that computes with them.

use joust_model::{Llama, ModelConfig, Weights};
use tch::{Kind, Tensor};

use crate::{AdamW, AdamWParams, Error, Result, Schedule};

/// How weights are updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// AdamW's constants.
    pub adamw: AdamWParams,
    /// Learning rate by step.
    pub schedule: Schedule,
    /// Largest global gradient norm; a longer gradient is scaled down to it. 0 never clips.
    pub max_grad_norm: f64,
}

/// What one update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub learning_rate: f64,
}

/// float32 masters with their optimizer; the model computes in the config's kind, through a differentiable cast.
#[derive(Debug)]
pub struct Master {
    /// Shape and constants.
    pub config: ModelConfig,
    /// float32 leaves of the gradient.
    pub weights: Weights,
    /// Moments.
    pub optimizer: AdamW,
    settings: Settings,
}

impl Master {
    /// Copies `weights` into float32 masters.
    pub fn new(config: &ModelConfig, weights: &Weights, settings: Settings) -> Self {
        let copy = weights.snapshot(Kind::Float);
        let leaves = copy.0.into_iter().map(|(name, tensor)| (name, tensor.set_requires_grad(true))).collect();
        let weights = Weights(leaves);
        let optimizer = AdamW::new(settings.adamw, &weights);
        Self { config: config.clone(), weights, optimizer, settings }
    }

    /// Builds the model on the masters, cast to the kind it computes in; gradients reach the masters.
    ///
    /// # Errors
    /// [`Error::Model`] if a tensor is missing.
    pub fn model(&self) -> Result<Llama> {
        Ok(Llama::new(&self.config, &self.weights.to_kind(self.config.dtype.kind()))?)
    }

    /// Clips the gathered gradients by their global norm, updates the masters, and forgets the gradients.
    ///
    /// # Errors
    /// [`Error::GradientNotFinite`]; then nothing was updated.
    pub fn update(&mut self) -> Result<Update> {
        let step = self.optimizer.updates;
        let gradients: Vec<Tensor> = self.weights.0.values().map(Tensor::grad).filter(Tensor::defined).collect();
        let norms: Vec<Tensor> = gradients.iter().map(|gradient| gradient.norm()).collect();
        let grad_norm = Tensor::stack(&norms, 0).norm().double_value(&[]);
        if !grad_norm.is_finite() {
            self.forget();
            return Err(Error::GradientNotFinite { step, value: grad_norm });
        }
        let limit = self.settings.max_grad_norm;
        // The 1e-6 is that of torch.nn.utils.clip_grad_norm_.
        let scale = if limit > 0.0 { (limit / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let learning_rate = self.settings.schedule.at(step);
        tch::no_grad(|| self.optimizer.update(&self.weights, learning_rate, scale));
        self.forget();
        Ok(Update { grad_norm, learning_rate })
    }

    /// Drops gathered gradients.
    pub fn forget(&mut self) {
        for weight in self.weights.0.values_mut() {
            let _ = weight.grad().defined().then(|| weight.zero_grad());
        }
    }
}
