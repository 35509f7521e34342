//! Low-rank adapters: which projections have one, their weights, and what they add to a decoder.
//!
//! `y = W·x + (alpha / rank)·B·A·x`. See "LoRA: Low-Rank Adaptation of Large Language Models", Hu et al.,
//! <https://arxiv.org/abs/2106.09685>. Names and meaning are PEFT's.

use std::collections::BTreeMap;

use joust_core::rng::{Stream, uniform};
use joust_torch::Mask;
use tch::{Kind, Tensor};

use crate::{
    Error, ModelConfig, Result, Weights,
    matrix::{Part, Stack},
};

/// The projections of a layer that can have an adapter.
pub(crate) const PROJECTIONS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
/// The target that stands for every projection.
pub(crate) const ALL: &str = "all-linear";

/// Shape of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rows of each A and columns of each B, at least 1.
    pub rank: i64,
    /// What an adapter adds is scaled by alpha / rank.
    pub alpha: f64,
    /// Probability with which an input of an adapter is dropped in training, in [0, 1).
    pub dropout: f64,
    /// Projections with an adapter: the end of a module's name (`q_proj`), or `all-linear`.
    pub targets: Vec<String>,
    /// Whether what an adapter adds is scaled by alpha / √rank instead.
    ///
    /// See "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", Kalajdzievski,
    /// <https://arxiv.org/abs/2312.03732>.
    pub rank_stabilized: bool,
    /// Modules by name whose rank and alpha are others.
    pub exceptions: BTreeMap<String, RankAlpha>,
}

/// Rank and alpha of one module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankAlpha {
    /// Rows of A and columns of B, at least 1.
    pub rank: i64,
    /// What the adapter adds is scaled by alpha / rank.
    pub alpha: f64,
}

/// What the masks of one forward pass are drawn from, besides the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Updates made before.
    pub step: u64,
    /// Micro-batch of the step.
    pub micro_batch: u32,
}

/// The weights of an adapter by key: `model.layers.0.self_attn.q_proj.lora_A.weight`.
#[derive(Debug)]
pub struct Adapter {
    /// Its shape.
    pub config: LoraConfig,
    /// A `[rank, in]` and B `[out, rank]` of each module.
    pub weights: Weights,
}

fn key(module: &str, side: char) -> String {
    format!("{module}.lora_{side}.weight")
}

/// A projection by its name, with outputs and inputs.
pub(crate) type Module = (String, [i64; 2]);

/// Returns whether a module's name is `end` or ends in it, by whole parts.
pub(crate) fn ends_with_module(name: &str, end: &str) -> bool {
    name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'))
}

impl LoraConfig {
    /// Lists the modules with an adapter.
    ///
    /// # Errors
    /// [`Error::Targets`] for a target that matches nothing.
    pub fn modules(&self, model: &ModelConfig) -> Result<Vec<Module>> {
        let all = projections(model);
        let matches = |target: &str, module: &str| target == ALL || ends_with_module(module, target);
        if let Some(target) = self.targets.iter().find(|target| !all.iter().any(|(name, _)| matches(target, name))) {
            return Err(Error::Targets { target: target.clone(), known: PROJECTIONS.join(", ") });
        }
        let wanted = |(name, _): &Module| self.targets.iter().any(|target| matches(target, name));
        Ok(all.into_iter().filter(wanted).collect())
    }

    /// Lists the tensors of an adapter with their shapes.
    ///
    /// # Errors
    /// As [`Self::modules`].
    pub fn tensors(&self, model: &ModelConfig) -> Result<Vec<(String, Vec<i64>)>> {
        let both = |(name, [outputs, inputs]): Module| {
            let rank = self.of(&name).rank;
            [(key(&name, 'A'), vec![rank, inputs]), (key(&name, 'B'), vec![outputs, rank])]
        };
        Ok(self.modules(model)?.into_iter().flat_map(both).collect())
    }

    /// Returns rank and alpha of a module.
    fn of(&self, module: &str) -> RankAlpha {
        self.exceptions.get(module).copied().unwrap_or(RankAlpha { rank: self.rank, alpha: self.alpha })
    }

    /// Returns the factor of what the adapter of a module adds.
    fn scale(&self, module: &str) -> f64 {
        let RankAlpha { rank, alpha } = self.of(module);
        let rank = rank as f64;
        alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

/// Lists every projection of a model that can have an adapter, by name.
pub(crate) fn projections(model: &ModelConfig) -> Vec<Module> {
    let name = |key: &str| key.strip_suffix(".weight").unwrap_or(key).to_owned();
    let tensors = model.tensors().into_iter().filter(|(key, _)| PROJECTIONS.iter().any(|p| name(key).ends_with(p)));
    tensors.map(|(key, shape)| (name(&key), [shape[0], shape[1]])).collect()
}

impl Adapter {
    /// Draws an adapter that adds nothing yet, as PEFT does: A uniform within `1/√in`, B at zero; float32.
    ///
    /// # Errors
    /// [`Error::Targets`] for a target that matches nothing.
    pub fn fresh(config: &LoraConfig, model: &ModelConfig, seed: u64) -> Result<Self> {
        let mut weights = BTreeMap::new();
        for (number, (name, [outputs, inputs])) in (0..).zip(config.modules(model)?) {
            let (bound, rank) = (1.0 / (inputs as f64).sqrt(), config.of(&name).rank);
            let draw = |i: u32| ((uniform(seed, Stream::Init, number, (0, i)) * 2.0 - 1.0) * bound) as f32;
            let values: Vec<f32> = (0..(rank * inputs) as u32).map(draw).collect();
            weights.insert(key(&name, 'A'), Tensor::from_slice(&values).view([rank, inputs]));
            weights.insert(key(&name, 'B'), Tensor::zeros([outputs, rank], tch::kind::FLOAT_CPU));
        }
        Ok(Self { config: config.clone(), weights: Weights(weights) })
    }

    /// Returns base weights with what the adapter adds to them, summed in float32, in the kind of the base.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor is missing.
    pub fn merged(&self, base: &Weights) -> Result<Weights> {
        let _no_grad = tch::no_grad_guard();
        let mut merged =
            base.0.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect::<BTreeMap<_, _>>();
        let modules = self.weights.0.keys().filter_map(|name| name.strip_suffix(".lora_A.weight"));
        for module in modules {
            let name = format!("{module}.weight");
            let (matrix, a, b) = (base.get(&name)?, self.wide(module, 'A')?, self.wide(module, 'B')?);
            let sum = matrix.to_kind(Kind::Float) + b.matmul(&a) * self.config.scale(module);
            merged.insert(name, sum.to_kind(matrix.kind()));
        }
        Ok(Weights(merged))
    }

    fn wide(&self, module: &str, side: char) -> Result<Tensor> {
        Ok(self.weights.get(&key(module, side))?.detach().to_kind(Kind::Float))
    }
}

/// The adapters of one layer, in the kind of the model that they are for.
pub(crate) struct Parts<'a> {
    adapter: &'a Adapter,
    model: &'a ModelConfig,
    kind: Kind,
    layer: usize,
    dropout: Option<DropoutKey>,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(
        adapter: &'a Adapter,
        (model, kind): (&'a ModelConfig, Kind),
        layer: usize,
        dropout: Option<DropoutKey>,
    ) -> Self {
        Self { adapter, model, kind, layer, dropout }
    }

    /// Returns the adapters of projections that are stacked, from top to bottom.
    pub(crate) fn of(&self, names: &[&str]) -> Result<Stack> {
        let (mut parts, mut masks) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            let module = format!("model.layers.{}.{name}", self.layer);
            let outputs = outputs(name, self.model);
            let weights = &self.adapter.weights;
            if !weights.0.contains_key(&key(&module, 'A')) {
                parts.push((outputs, None));
                continue;
            }
            let get = |side| Ok::<_, Error>(weights.get(&key(&module, side))?.to_kind(self.kind));
            let b = get('B')? * self.adapter.config.scale(&module);
            parts.push((outputs, Some(Part { a: get('A')?, b })));
            let place = PROJECTIONS.iter().position(|projection| projection == name).unwrap_or_default();
            let module = (self.layer * PROJECTIONS.len() + place) as u32;
            masks.extend(self.dropout.map(|DropoutKey { seed, step, micro_batch }| Mask {
                seed,
                step,
                micro_batch,
                module,
            }));
        }
        let probability = self.adapter.config.dropout;
        let dropped = self.dropout.is_some() && probability > 0.0;
        Ok(Stack { parts, dropout: dropped.then_some((probability, masks)) })
    }
}

/// Returns the rows of a projection's matrix.
fn outputs(name: &str, model: &ModelConfig) -> i64 {
    match name {
        "self_attn.q_proj" => model.num_attention_heads * model.head_dim,
        "self_attn.k_proj" | "self_attn.v_proj" => model.num_key_value_heads * model.head_dim,
        "mlp.gate_proj" | "mlp.up_proj" => model.intermediate_size,
        _ => model.hidden_size,
    }
}
