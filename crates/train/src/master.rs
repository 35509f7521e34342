//! Trained weights: float32 masters, their optimizer and schedule, and the model that computes with them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use joust_model::{Llama, ModelConfig, Weights};
use joust_torch::{ProcessGroup, clear_grad, compute_copy, square_sum, version};
use tch::{Kind, Tensor};

use crate::{Average, Error, Optimizer, OptimizerParams, Past, Result, Schedule, reducer::Reducer};

/// How weights are updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The optimizer with its constants.
    pub optimizer: OptimizerParams,
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

/// float32 masters with their optimizer; the model computes in the config's kind and its gradients reach the masters.
#[derive(Debug)]
pub struct Master {
    /// Shape and constants.
    pub config: ModelConfig,
    /// float32 leaves of the gradient.
    pub weights: Weights,
    /// What updates them.
    pub optimizer: Optimizer,
    /// The averaged policy, where one is kept.
    pub average: Option<Average>,
    /// The policy of one publish ago, where it is kept.
    pub past: Option<Past>,
    settings: Settings,
    matrices: Vec<Matrix>,
    /// What the model reads instead of each master, rounded to the config's kind; empty when that is float32.
    copies: BTreeMap<String, Tensor>,
    /// Version of each master when its copy was last made equal to it.
    versions: RefCell<BTreeMap<String, i64>>,
    /// Sums gradients over ranks, where there are several.
    pub(crate) reducer: Option<Reducer>,
}

/// A matrix that the model reads whole: one master, or several stacked by rows.
#[derive(Debug)]
struct Matrix {
    key: String,
    parts: Vec<String>,
    /// In the kind that the model computes in; its rows are the copies, or the masters themselves in float32.
    whole: Tensor,
}

/// Groups the tensors that [`Llama`] wants stacked; every other one stands alone.
fn groups(config: &ModelConfig, weights: &Weights) -> Vec<(String, Vec<String>)> {
    let mut groups = Weights::stacked_keys(config);
    let stacked: BTreeSet<&String> = groups.iter().flat_map(|(_, parts)| parts).collect();
    let single = weights.0.keys().filter(|key| !stacked.contains(key)).map(|key| (key.clone(), vec![key.clone()]));
    let single: Vec<_> = single.collect();
    groups.extend(single);
    groups
}

/// Cuts a stack into views by the rows of `parts`.
fn rows(whole: &Tensor, weights: &Weights, parts: &[String]) -> Vec<(String, Tensor)> {
    let mut at = 0;
    let mut cut = |name: &String| {
        let rows = weights.0[name].size()[0];
        at += rows;
        (name.clone(), whole.narrow(0, at - rows, rows).detach())
    };
    parts.iter().map(&mut cut).collect()
}

impl Master {
    /// Copies `weights` into float32 masters.
    ///
    /// # Panics
    /// If a stacked projection is missing from `weights`; loading a model folder checks that none is.
    pub fn new(config: &ModelConfig, weights: &Weights, settings: Settings) -> Self {
        let kind = config.dtype.kind();
        let (mut leaves, mut copies, mut matrices) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (key, parts) in groups(config, weights) {
            let tensors: Vec<Tensor> = parts.iter().map(|part| weights.0[part].detach().to_kind(Kind::Float)).collect();
            let master = Tensor::cat(&tensors, 0);
            let whole = if kind == Kind::Float { master.shallow_clone() } else { master.to_kind(kind) };
            let leaf = |(name, tensor): (String, Tensor)| (name, tensor.set_requires_grad(true));
            leaves.extend(rows(&master, weights, &parts).into_iter().map(leaf));
            if kind != Kind::Float {
                copies.extend(rows(&whole, weights, &parts));
            }
            matrices.push(Matrix { key, parts, whole });
        }
        let weights = Weights(leaves);
        let optimizer = Optimizer::new(settings.optimizer, &weights);
        let versions = RefCell::new(weights.0.iter().map(|(name, tensor)| (name.clone(), version(tensor))).collect());
        Self {
            config: config.clone(),
            weights,
            optimizer,
            average: None,
            past: None,
            settings,
            matrices,
            copies,
            versions,
            reducer: None,
        }
    }

    /// Sums gradients over the ranks of a group from here on, in buckets of `smallest` elements at least; all ranks hold the same masters.
    ///
    /// # Errors
    /// [`Error::Border`] if libtorch refuses.
    pub(crate) fn reduce_over(&mut self, group: Arc<ProcessGroup>, smallest: i64) -> Result<()> {
        let matrices: Vec<_> = self.matrices.iter().map(|matrix| (matrix.key.clone(), matrix.parts.clone())).collect();
        self.reducer = Some(Reducer::new((group, smallest), &matrices, &self.weights)?);
        Ok(())
    }

    /// Keeps an average of the masters from here on.
    pub fn keep_average(&mut self, decay: f64) {
        self.average = Some(Average::new(decay, &self.weights));
    }

    /// Keeps the policy of one publish ago from here on.
    pub fn keep_past(&mut self) {
        self.past = Some(Past::new(&self.weights));
    }

    /// Builds the model that computes with the masters in the config's kind; gradients reach the masters, in float32.
    ///
    /// It shares memory with the masters or their copies: after an update it computes with the new weights.
    ///
    /// # Errors
    /// [`Error::Model`] if a tensor is missing.
    pub fn model(&self) -> Result<Llama> {
        self.refresh();
        let mut read = BTreeMap::new();
        for Matrix { key, parts, whole } in &self.matrices {
            let masters: Vec<&Tensor> = parts.iter().map(|part| &self.weights.0[part]).collect();
            let report = self.reducer.as_ref().and_then(|reducer| reducer.report(key));
            let tensor = match masters.as_slice() {
                [single] if self.copies.is_empty() && report.is_none() => single.shallow_clone(),
                _ => compute_copy(whole, &masters, report)?,
            };
            read.insert(key.clone(), tensor);
        }
        Ok(Llama::new(&self.config, &Weights(read))?)
    }

    /// Rounds masters that were written since, for example by a restored checkpoint, into their copies.
    fn refresh(&self) {
        let _no_grad = tch::no_grad_guard();
        let mut versions = self.versions.borrow_mut();
        for (name, copy) in &self.copies {
            let (master, seen) = (&self.weights.0[name], versions.entry(name.clone()).or_default());
            if version(master) != *seen {
                copy.shallow_clone().copy_(master);
                *seen = version(master);
            }
        }
    }

    /// Clips the gathered gradients by their global norm, updates the masters, and forgets the gradients.
    ///
    /// # Errors
    /// [`Error::GradientNotFinite`]; then nothing was updated.
    pub fn update(&mut self) -> Result<Update> {
        let step = self.optimizer.updates;
        let gradients = self.weights.0.values().map(Tensor::grad).filter(Tensor::defined);
        let squares: f64 = gradients.map(|gradient| square_sum(&gradient)).sum::<std::result::Result<f64, _>>()?;
        let grad_norm = squares.sqrt();
        if !grad_norm.is_finite() {
            self.forget();
            return Err(Error::GradientNotFinite { step, value: grad_norm });
        }
        let limit = self.settings.max_grad_norm;
        // The 1e-6 is that of torch.nn.utils.clip_grad_norm_.
        let scale = if limit > 0.0 { (limit / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let learning_rate = self.settings.schedule.at(step);
        self.refresh();
        tch::no_grad(|| self.optimizer.update_with(&self.weights, &self.copies, learning_rate, scale))?;
        for (name, seen) in self.versions.get_mut() {
            *seen = version(&self.weights.0[name]);
        }
        if let Some(average) = &mut self.average {
            average.follow(&self.weights);
        }
        self.forget();
        Ok(Update { grad_norm, learning_rate })
    }

    /// Drops gathered gradients.
    pub fn forget(&mut self) {
        if let Some(reducer) = &self.reducer {
            return reducer.clear();
        }
        for weight in self.weights.0.values() {
            clear_grad(weight).expect("masters are leaves");
        }
    }
}
