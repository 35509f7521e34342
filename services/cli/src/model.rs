//! Opening model folders: weights and tokenizer that belong together.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use joust_config::run::{Lora, Policy};
use joust_core::ModelRef;
use joust_data::Tokenizer;
use joust_engine::Snapshot;
use joust_model::{Adapter, AdapterFolder, Dtype, Head, Llama, LoraConfig, ModelConfig, Weights, read_adapter};
use tch::{Kind, Tensor};

use crate::device;

/// A language model with its tokenizer.
pub struct LanguageModel {
    /// Folder of the weights, without the adapter.
    pub folder: PathBuf,
    /// Folder of the tokenizer files.
    pub words: PathBuf,
    /// Shape and constants.
    pub config: ModelConfig,
    /// The weights, without the adapter.
    pub weights: Weights,
    /// What is added to them, where there is something.
    pub adapter: Option<Adapter>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

/// Opens a folder whose head is `head`, converting the weights to `dtype` if one is given; a PEFT folder is opened with its base.
///
/// # Errors
/// A folder that is not whole, or a tokenizer that does not fit the embedding.
pub fn open(folder: &Path, head: Head, dtype: Option<Dtype>) -> anyhow::Result<LanguageModel> {
    let (config, weights, adapter) = joust_model::open(folder)?;
    let weights = weights.to_device(device::torch());
    check_head(folder, config.head, head)?;
    let (base, adapter) = match adapter {
        Some(AdapterFolder { base, adapter }) => (base, Some(placed(adapter))),
        None => (folder.to_owned(), None),
    };
    // An adapter's folder need not hold the tokenizer.
    let words = if folder.join("tokenizer.json").is_file() { folder.to_owned() } else { base.clone() };
    let tokenizer =
        Tokenizer::open(&words).with_context(|| format!("failed to open the tokenizer of {}", words.display()))?;
    tokenizer.check_embedding(config.vocab_size as usize)?;
    let config = match dtype {
        Some(dtype) if dtype != config.dtype => config.with_dtype(dtype),
        _ => config,
    };
    Ok(LanguageModel { folder: base, words, config, weights, adapter, tokenizer: Arc::new(tokenizer) })
}

/// Refuses a folder with another head than the one that is needed.
fn check_head(folder: &Path, found: Head, wanted: Head) -> anyhow::Result<()> {
    let folder = folder.display();
    match (found, wanted) {
        (Head::CausalLm, Head::Score) => bail!(
            "{folder} is a language model (LlamaForCausalLM), and a reward model (LlamaForSequenceClassification) is \
             needed; give one, or make one of it by `joust train-reward`"
        ),
        (Head::Score, Head::CausalLm) => bail!(
            "{folder} is a reward model (LlamaForSequenceClassification), and a language model (LlamaForCausalLM) is \
             needed; give another folder"
        ),
        _ => Ok(()),
    }
}

/// Opens what a run trains: all weights, or an adapter on them that starts from nothing or from a folder.
///
/// # Errors
/// As [`open`]; an adapter that does not fit the model, or is not what the run file says.
pub fn policy(policy: &Policy, seed: u64) -> anyhow::Result<LanguageModel> {
    let opened = open(&policy.model, Head::CausalLm, Some(dtype(policy.dtype)))?;
    let Some(lora) = &policy.lora else { return opened.merged() };
    ensure!(
        opened.adapter.is_none(),
        "policy.model = {} is an adapter; write its base, {}, there, and the adapter in policy.lora.init",
        policy.model.display(),
        opened.folder.display()
    );
    let wanted = lora_config(lora);
    let adapter = match &lora.init {
        None => Adapter::fresh(&wanted, &opened.config, seed).context("policy.lora.targets")?,
        Some(folder) => started(folder, &wanted, &opened.config)?,
    };
    Ok(LanguageModel { adapter: Some(placed(adapter)), ..opened })
}

/// Moves an adapter to the chosen device.
fn placed(adapter: Adapter) -> Adapter {
    Adapter { weights: adapter.weights.to_device(device::torch()), ..adapter }
}

/// Reads the adapter that a run goes on from.
fn started(folder: &Path, wanted: &LoraConfig, model: &ModelConfig) -> anyhow::Result<Adapter> {
    let Adapter { config, weights } = read_adapter(folder, model)?;
    let same = config.rank == wanted.rank
        && config.alpha == wanted.alpha
        && config.modules(model)? == wanted.modules(model)?;
    ensure!(
        same,
        "policy.lora.init = {} has rank = {}, alpha = {} and targets = {:?}; write these in policy.lora",
        folder.display(),
        config.rank,
        config.alpha,
        config.targets
    );
    // Patterns and the scale belong to the tensors; the run file has no keys for them.
    let LoraConfig { rank_stabilized, exceptions, .. } = config;
    Ok(Adapter { config: LoraConfig { rank_stabilized, exceptions, ..wanted.clone() }, weights })
}

fn lora_config(Lora { rank, alpha, targets, dropout, .. }: &Lora) -> LoraConfig {
    LoraConfig {
        rank: i64::from(*rank),
        alpha: *alpha,
        dropout: *dropout,
        targets: targets.clone(),
        rank_stabilized: false,
        exceptions: BTreeMap::new(),
    }
}

/// Gives a decoder a scalar head that starts at zero, in place of the one that predicts tokens.
pub fn scored(config: ModelConfig, weights: &Weights, pad_id: Option<u32>) -> (ModelConfig, Weights) {
    rated(config, weights, pad_id, &[])
}

/// Gives a decoder a head with one score a label, which starts at zero; without labels a scalar one.
pub fn rated(config: ModelConfig, weights: &Weights, pad_id: Option<u32>, labels: &[String]) -> (ModelConfig, Weights) {
    let config = if labels.is_empty() { config.with_score_head(pad_id) } else { config.with_labels(labels, pad_id) };
    let mut weights = weights.snapshot(Kind::Float);
    weights.0.remove("lm_head.weight");
    let shape = [config.labels.len() as i64, config.hidden_size];
    weights.0.insert("score.weight".into(), Tensor::zeros(shape, (Kind::Float, device::torch())));
    (config, weights)
}

impl LanguageModel {
    /// Copies the weights for sampling, as version 0.
    ///
    /// # Errors
    /// Weights that lack a tensor.
    pub fn snapshot(&self, hash: String) -> anyhow::Result<Arc<Snapshot>> {
        let id = ModelRef { generation: 0, version: 0, hash };
        let base = Snapshot::new(&self.config, &self.weights, id.clone())?;
        Ok(Arc::new(match &self.adapter {
            Some(adapter) => base.with_adapter(adapter, id)?,
            None => base,
        }))
    }

    /// Copies the weights into a decoder that computes in the config's kind.
    ///
    /// # Errors
    /// Weights that lack a tensor.
    pub fn decoder(&self) -> anyhow::Result<Llama> {
        let base = Llama::new(&self.config, &self.weights.snapshot(self.config.dtype.kind()))?;
        Ok(match &self.adapter {
            Some(adapter) => base.with_adapter(adapter, None)?,
            None => base,
        })
    }

    /// Adds the adapter to the weights, if there is one, in float32.
    ///
    /// # Errors
    /// Weights that lack a tensor.
    pub fn merged(mut self) -> anyhow::Result<Self> {
        if let Some(adapter) = self.adapter.take() {
            self.weights = adapter.merged(&self.weights.to_kind(Kind::Float))?;
        }
        Ok(self)
    }

    /// Hashes the weights, and the adapter if there is one.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn hash(&self) -> anyhow::Result<String> {
        let base = self.weights.hash()?;
        let Some(adapter) = &self.adapter else { return Ok(base) };
        Ok(blake3::hash(format!("{base} {}", adapter.weights.hash()?).as_bytes()).to_hex().to_string())
    }
}

/// Returns the element type that a run file names.
pub fn dtype(dtype: joust_config::run::Dtype) -> Dtype {
    match dtype {
        joust_config::run::Dtype::Bfloat16 => Dtype::Bfloat16,
        joust_config::run::Dtype::Float32 => Dtype::Float32,
    }
}
