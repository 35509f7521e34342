//! Opening model folders: weights and tokenizer that belong together.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use joust_core::ModelRef;
use joust_data::Tokenizer;
use joust_engine::Snapshot;
use joust_model::{Dtype, Head, ModelConfig, Weights, load};
use tch::{Kind, Tensor};

/// A language model with its tokenizer.
pub struct LanguageModel {
    /// Shape and constants.
    pub config: ModelConfig,
    /// The weights.
    pub weights: Weights,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

/// Opens a folder whose head is `head`, converting the weights to `dtype` if one is given.
///
/// # Errors
/// A folder that is not whole, or a tokenizer that does not fit the embedding.
pub fn open(folder: &Path, head: Head, dtype: Option<Dtype>) -> anyhow::Result<LanguageModel> {
    let (config, weights) = load(folder)?;
    if config.head != head {
        let wanted = match head {
            Head::CausalLm => "a language model (LlamaForCausalLM)",
            Head::Score => "a reward model (LlamaForSequenceClassification)",
        };
        bail!("{} is not {wanted}; give another folder", folder.display());
    }
    let tokenizer =
        Tokenizer::open(folder).with_context(|| format!("failed to open the tokenizer of {}", folder.display()))?;
    tokenizer.check_embedding(config.vocab_size as usize)?;
    let config = match dtype {
        Some(dtype) if dtype != config.dtype => config.with_dtype(dtype),
        _ => config,
    };
    Ok(LanguageModel { config, weights, tokenizer: Arc::new(tokenizer) })
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
    weights.0.insert("score.weight".into(), Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu)));
    (config, weights)
}

impl LanguageModel {
    /// Copies the weights for sampling, as version 0.
    ///
    /// # Errors
    /// Weights that lack a tensor.
    pub fn snapshot(&self, hash: String) -> anyhow::Result<Arc<Snapshot>> {
        let id = ModelRef { generation: 0, version: 0, hash };
        Ok(Arc::new(Snapshot::new(&self.config, &self.weights, id)?))
    }
}

/// Returns the element type that a run file names.
pub fn dtype(dtype: joust_config::run::Dtype) -> Dtype {
    match dtype {
        joust_config::run::Dtype::Bfloat16 => Dtype::Bfloat16,
        joust_config::run::Dtype::Float32 => Dtype::Float32,
    }
}
