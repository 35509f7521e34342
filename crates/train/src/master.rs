//! Trained weights: float32 masters, their optimizer and schedule, and the model that computes with them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use joust_model::{Adapter, DropoutKey, Llama, LoraConfig, ModelConfig, Weights};
use joust_torch::{Sink, clear_grad, compute_copy, square_sum, version};
use tch::{Kind, Tensor};

use crate::{
    Average, Error, Optimizer, OptimizerParams, Past, Ranks, Result, Schedule,
    buckets::{Cut, Stack, buckets, rows_of},
    reducer::Reducer,
};

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
    /// Norm of what the weights moved by, over their own norm, where it was measured.
    pub moved: Option<f64>,
}

/// float32 masters with their optimizer; the model computes in the config's kind and its gradients reach the masters.
///
/// Of several ranks each keeps masters, gradients, moments and averages of its own rows of every weight, and all compute with all rows.
#[derive(Debug)]
pub struct Master {
    /// Shape and constants.
    pub config: ModelConfig,
    /// float32 leaves of the gradient: this rank's rows of each weight.
    pub weights: Weights,
    /// What updates them.
    pub optimizer: Optimizer,
    /// The averaged policy, where one is kept.
    pub average: Option<Average>,
    /// The policy of one publish ago, where it is kept.
    pub past: Option<Past>,
    /// Whether the backward pass computes layers again instead of keeping what lies in them.
    pub recomputes: bool,
    /// Whether the next update measures by how much it moves the weights, which costs about three passes over them.
    pub measures: bool,
    settings: Settings,
    ranks: Ranks,
    matrices: Vec<Matrix>,
    /// Whole weights as the model computes with them: views of the matrices.
    computed: BTreeMap<String, Tensor>,
    /// This rank's rows of each weight.
    rows: BTreeMap<String, Range<i64>>,
    /// What is rounded from each master: its rows of the computed weights; empty when they are the masters, in float32.
    copies: BTreeMap<String, Tensor>,
    /// Version of each master when its copy was last made equal to it.
    versions: RefCell<BTreeMap<String, i64>>,
    /// Sums gradients over ranks, where there are several.
    pub(crate) reducer: Option<Reducer>,
    /// What the masters are added to, where they are an adapter.
    base: Option<Base>,
}

/// The frozen model below an adapter.
#[derive(Debug)]
struct Base {
    model: Llama,
    lora: LoraConfig,
    /// Seed of dropout.
    seed: u64,
}

/// A matrix that the model reads whole: one weight, or several stacked by rows.
#[derive(Debug)]
struct Matrix {
    key: String,
    parts: Vec<String>,
    /// In the kind that the model computes in.
    whole: Tensor,
}

/// Groups the tensors that [`Llama`] wants stacked; every other one stands alone.
fn groups(config: &ModelConfig, weights: &Weights) -> Vec<(String, Vec<String>)> {
    let mut groups = Weights::stacked_keys(config);
    groups.retain(|(_, parts)| parts.iter().all(|part| weights.0.contains_key(part))); // an adapter has none
    let stacked: BTreeSet<&String> = groups.iter().flat_map(|(_, parts)| parts).collect();
    let single = weights.0.keys().filter(|key| !stacked.contains(key)).map(|key| (key.clone(), vec![key.clone()]));
    let single: Vec<_> = single.collect();
    groups.extend(single);
    groups
}

/// Stacks the parts in a kind; each part is a view of the stack.
fn stack(weights: &Weights, parts: &[String], kind: Kind) -> (Tensor, Vec<(String, Tensor)>) {
    // Converted first, so that a stack is made in one copy.
    let tensors: Vec<Tensor> = parts.iter().map(|part| weights.0[part].detach().to_kind(kind)).collect();
    let whole = Tensor::cat(&tensors, 0);
    let mut at = 0;
    let mut cut = |name: &String| {
        let rows = weights.0[name].size()[0];
        at += rows;
        (name.clone(), whole.narrow(0, at - rows, rows).detach())
    };
    let views = parts.iter().map(&mut cut).collect();
    (whole, views)
}

fn narrowed(tensor: &Tensor, rows: &Range<i64>) -> Tensor {
    tensor.narrow(0, rows.start, rows.end - rows.start)
}

impl Master {
    /// Copies `weights` into float32 masters.
    ///
    /// # Panics
    /// If a stacked projection is missing from `weights`; loading a model folder checks that none is.
    pub fn new(config: &ModelConfig, weights: &Weights, settings: Settings) -> Self {
        Self::on(Ranks::default(), config, weights, settings).expect("one rank meets no other")
    }

    /// Copies this rank's rows of `weights`, which are the same on all ranks, into float32 masters.
    ///
    /// # Errors
    /// [`crate::Error::Border`] if libtorch refuses.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn on(ranks: Ranks, config: &ModelConfig, weights: &Weights, settings: Settings) -> Result<Self> {
        let kind = config.dtype.kind();
        let groups = groups(config, weights);
        let buckets = ranks.group().map_or_else(Vec::new, |(_, smallest)| {
            let cut = Cut { ranks: ranks.size(), smallest, whole: settings.optimizer.reads_whole_weights() };
            buckets(&shapes(&groups, weights), cut)
        });
        let mut rows = rows_of(&buckets, ranks.rank());
        let (mut leaves, mut copies, mut matrices, mut computed) =
            (BTreeMap::new(), BTreeMap::new(), Vec::new(), BTreeMap::new());
        for (key, parts) in groups {
            let (whole, views) = stack(weights, &parts, kind);
            for (name, view) in views {
                let own = rows.entry(name.clone()).or_insert(0..view.size()[0]);
                let master = match kind {
                    Kind::Float => narrowed(&view, own).detach(),
                    _ => narrowed(&weights.0[&name].detach(), own).to_dtype(Kind::Float, false, true),
                };
                if kind != Kind::Float {
                    copies.insert(name.clone(), narrowed(&view, own));
                }
                leaves.insert(name.clone(), master.set_requires_grad(true));
                computed.insert(name, view);
            }
            matrices.push(Matrix { key, parts, whole });
        }
        let weights = Weights(leaves);
        let optimizer = Optimizer::new(settings.optimizer, &weights);
        let versions = RefCell::new(weights.0.iter().map(|(name, tensor)| (name.clone(), version(tensor))).collect());
        let stacks = matrices.iter().map(|matrix| (matrix.key.clone(), heights(&matrix.parts, &computed))).collect();
        let reducer = match ranks.group() {
            Some((group, _)) => Some(Reducer::new(group.clone(), buckets, &stacks, &weights)?),
            None => None,
        };
        let config = config.clone();
        Ok(Self {
            config,
            weights,
            optimizer,
            average: None,
            past: None,
            recomputes: false,
            measures: false,
            settings,
            ranks,
            matrices,
            computed,
            rows,
            copies,
            versions,
            reducer,
            base: None,
        })
    }

    /// Takes the masters for an adapter of the given shape on a frozen model, whose memory is shared; dropout is drawn from `seed`.
    #[must_use]
    pub fn on_base(self, model: &Llama, lora: LoraConfig, seed: u64) -> Self {
        Self { base: Some(Base { model: model.base(), lora, seed }), ..self }
    }

    /// Returns whether the masters are an adapter.
    pub(crate) fn is_adapter(&self) -> bool {
        self.base.is_some()
    }

    /// Returns the ranks that share the masters.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
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
    /// [`crate::Error::Model`] if a tensor is missing.
    pub fn model(&self) -> Result<Llama> {
        self.model_with(&|key| self.sink(key))
    }

    /// As [`Self::model`], with gradients that go to sinks.
    pub(crate) fn model_with<'s>(&self, sink: &dyn Fn(&str) -> Option<(&'s Sink, i64)>) -> Result<Llama> {
        self.decoder(self.read(sink)?, None)
    }

    /// Builds the model of [`Self::model`] as a micro-batch is trained with: an adapter's inputs are dropped as its config says.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn training_model(&self, micro_batch: u32) -> Result<Llama> {
        let step = self.optimizer.updates;
        let dropout = self.base.as_ref().map(|base| DropoutKey { seed: base.seed, step, micro_batch });
        self.decoder(self.tensors()?, dropout)
    }

    /// Builds a model of other weights than the masters, in the config's kind; an adapter's on the shared base.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn model_of(&self, weights: Weights) -> Result<Llama> {
        self.decoder(weights, None)
    }

    fn decoder(&self, weights: Weights, dropout: Option<DropoutKey>) -> Result<Llama> {
        let model = match &self.base {
            None => Llama::new(&self.config, &weights)?,
            Some(base) => base.model.with_adapter(&Adapter { config: base.lora.clone(), weights }, dropout)?,
        };
        Ok(model.recomputing(self.recomputes))
    }

    fn sink(&self, key: &str) -> Option<(&Sink, i64)> {
        self.reducer.as_ref().and_then(|reducer| reducer.sink(key))
    }

    /// Returns what is computed with, in the config's kind; gradients reach the masters.
    pub(crate) fn tensors(&self) -> Result<Weights> {
        self.read(&|key| self.sink(key))
    }

    fn read<'s>(&self, sink: &dyn Fn(&str) -> Option<(&'s Sink, i64)>) -> Result<Weights> {
        self.refresh();
        let mut read = BTreeMap::new();
        for Matrix { key, parts, whole } in &self.matrices {
            let masters: Vec<&Tensor> = parts.iter().map(|part| &self.weights.0[part]).collect();
            let sink = sink(key);
            let tensor = match masters.as_slice() {
                [single] if self.copies.is_empty() && sink.is_none() => single.shallow_clone(),
                _ => compute_copy(whole, &masters, sink)?,
            };
            read.insert(key.clone(), tensor);
        }
        Ok(Weights(read))
    }

    /// Rounds masters that were written since into their copies.
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

    /// Clips the gathered gradients by their global norm, updates the masters, and forgets the gradients; all ranks get the new weights.
    ///
    /// # Errors
    /// [`Error::GradientNotFinite`]; then nothing was updated. [`Error::Border`] if a rank is lost.
    pub fn update(&mut self) -> Result<Update> {
        let step = self.optimizer.updates;
        let gradients = self.weights.0.values().map(Tensor::grad).filter(Tensor::defined);
        let squares: f64 = gradients.map(|gradient| square_sum(&gradient)).sum::<std::result::Result<f64, _>>()?;
        let grad_norm = self.ranks.sum(squares)?.sqrt();
        if !grad_norm.is_finite() {
            self.forget();
            return Err(Error::GradientNotFinite { step, value: grad_norm });
        }
        let limit = self.settings.max_grad_norm;
        // The 1e-6 is that of torch.nn.utils.clip_grad_norm_.
        let scale = if limit > 0.0 { (limit / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let learning_rate = self.settings.schedule.at(step);
        self.refresh();
        let moved = tch::no_grad(|| self.apply(learning_rate, scale))?;
        for (name, seen) in self.versions.get_mut() {
            *seen = version(&self.weights.0[name]);
        }
        if let Some(average) = &mut self.average {
            average.follow(&self.weights);
        }
        self.forget();
        self.spread()?;
        Ok(Update { grad_norm, learning_rate, moved })
    }

    /// Updates this rank's rows; returns [`Update::moved`].
    fn apply(&mut self, learning_rate: f64, scale: f64) -> Result<Option<f64>> {
        if !std::mem::take(&mut self.measures) {
            self.optimizer.update_with(&self.weights, &self.copies, learning_rate, scale)?;
            return Ok(None);
        }
        let own = self.optimizer.update_measured(&self.weights, &self.copies, learning_rate, scale)?;
        let [weights, moved] = [self.ranks.sum(own[0])?, self.ranks.sum(own[1])?];
        Ok(Some((moved / weights).sqrt()))
    }

    /// Gives all ranks the rows that this one has updated.
    fn spread(&self) -> Result<()> {
        let Some(reducer) = &self.reducer else { return Ok(()) };
        let own = |name: &str| narrowed(&self.computed[name], &self.rows[name]);
        reducer.share(self.config.dtype.kind(), &own, &mut |piece, values| {
            let mut rows = narrowed(&self.computed[&piece.name], &piece.rows);
            rows.copy_(&values.view_as(&rows));
        })
    }

    /// Returns whole float32 weights of which each rank has its rows, as this one's masters or their average; all ranks call it.
    ///
    /// # Errors
    /// [`Error::Border`] if a rank is lost.
    pub fn whole(&self, own: &Weights) -> Result<Weights> {
        let Some(reducer) = &self.reducer else { return Ok(own.snapshot(Kind::Float)) };
        let _no_grad = tch::no_grad_guard();
        let empty = |(name, like): (&String, &Tensor)| {
            let whole = Tensor::empty(like.size(), (Kind::Float, like.device()));
            narrowed(&whole, &self.rows[name]).copy_(&own.0[name].detach());
            (name.clone(), whole)
        };
        let whole = Weights(self.computed.iter().map(empty).collect());
        reducer.share(Kind::Float, &|name| own.0[name].detach(), &mut |piece, values| {
            let mut rows = narrowed(&whole.0[&piece.name], &piece.rows);
            rows.copy_(&values.view_as(&rows));
        })?;
        Ok(whole)
    }

    /// Copies the weights that the model computes with, whole and in its kind.
    pub fn computed(&self) -> Weights {
        self.refresh();
        Weights(self.computed.iter().map(|(name, view)| (name.clone(), view.copy())).collect())
    }

    /// Returns this rank's rows of a weight.
    pub(crate) fn rows(&self, name: &str) -> Range<i64> {
        self.rows.get(name).cloned().unwrap_or_default()
    }

    /// Replaces a weight, all rows of it, by float32 values: this rank's master and what the model computes with.
    pub(crate) fn replace(&self, name: &str, values: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        self.computed[name].shallow_clone().copy_(values);
        self.weights.0[name].detach().copy_(&narrowed(values, &self.rows[name]));
        self.versions.borrow_mut().insert(name.to_owned(), version(&self.weights.0[name]));
    }

    /// Returns the names of the weights with the shape of each, whole.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&String, Vec<i64>)> {
        self.computed.iter().map(|(name, view)| (name, view.size()))
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

/// Returns the rows of each part.
fn heights(parts: &[String], whole: &BTreeMap<String, Tensor>) -> Vec<(String, i64)> {
    parts.iter().map(|part| (part.clone(), whole[part].size()[0])).collect()
}

/// Returns rows and width of the weights of each matrix.
fn shapes(groups: &[(String, Vec<String>)], weights: &Weights) -> Vec<Stack> {
    let shape = |part: &String| {
        let weight = &weights.0[part];
        let rows = weight.size()[0];
        (part.clone(), rows, weight.numel() as i64 / rows.max(1))
    };
    groups.iter().map(|(key, parts)| (key.clone(), parts.iter().map(shape).collect())).collect()
}
