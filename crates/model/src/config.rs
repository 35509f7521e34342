//! `config.json` of a Llama-type folder, of today (`dtype`, `rope_parameters`) and of before (`torch_dtype`, `rope_scaling`).

mod keys;
mod reader;

use std::path::Path;

use serde_json::{Map, Value, json};

use self::reader::Reader;
use crate::{Result, keys::check};

/// Element type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    Float32,
    /// bfloat16; log-probs, losses, norms and optimizer state stay float32.
    Bfloat16,
}

impl Dtype {
    /// Returns libtorch's kind.
    pub fn kind(self) -> tch::Kind {
        match self {
            Self::Float32 => tch::Kind::Float,
            Self::Bfloat16 => tch::Kind::BFloat16,
        }
    }

    /// Returns the name that Hugging Face uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
        }
    }

    /// Parses Hugging Face's name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "float32" => Some(Self::Float32),
            "bfloat16" => Some(Self::Bfloat16),
            _ => None,
        }
    }
}

/// What sits on top of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A language model: logits over the vocabulary (`LlamaForCausalLM`).
    CausalLm,
    /// One score a label from the last token (`LlamaForSequenceClassification`).
    Score,
}

/// How rotary frequencies are stretched beyond the trained context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// Stretch, at least 1.
        factor: f64,
    },
    /// Llama 3's: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// Stretch of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are stretched wholly.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of the first training, in tokens.
        original: f64,
    },
}

/// Shape and constants of a model; `raw` keeps every key of the file for writing back.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// H.
    pub hidden_size: i64,
    /// Width of the gated MLP.
    pub intermediate_size: i64,
    /// L.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key/value heads; divides the query heads.
    pub num_key_value_heads: i64,
    /// D.
    pub head_dim: i64,
    /// V, as the embedding has it.
    pub vocab_size: i64,
    /// Longest context in tokens.
    pub max_position_embeddings: i64,
    /// Added to the mean square before the root.
    pub rms_norm_eps: f64,
    /// Base of the rotary wavelengths.
    pub rope_theta: f64,
    /// Stretch of the rotary wavelengths.
    pub rope_scaling: RopeScaling,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Element type of the stored weights.
    pub dtype: Dtype,
    /// Language model or scores.
    pub head: Head,
    /// Names of what a score head gives, in order; empty for a language model.
    pub labels: Vec<String>,
    /// Fills the ends of rows of a batch: a score head reads the last token that is another one.
    pub pad_token_id: Option<i64>,
    /// Every key of the file.
    pub raw: Map<String, Value>,
}

impl ModelConfig {
    /// Parses the keys of `config.json`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a missing key, a value out of range, an architecture that is not supported, or a key
    /// that would change what is computed.
    pub fn parse(path: &Path, raw: Map<String, Value>) -> Result<Self> {
        let reader = Reader { path, raw: &raw };
        let head = reader.head()?;
        check(path, &raw, &[keys::MODEL, keys::BOOKKEEPING, keys::GENERATION])?;
        let hidden_size = reader.integer("hidden_size")?;
        let heads = reader.integer("num_attention_heads")?;
        let max_position_embeddings = reader.integer_or("max_position_embeddings", 2048)?;
        let (rope_theta, rope_scaling) = reader.rope(max_position_embeddings)?;
        let labels = if head == Head::Score { reader.labels()? } else { Vec::new() };
        Ok(Self {
            hidden_size,
            intermediate_size: reader.integer("intermediate_size")?,
            num_hidden_layers: reader.integer("num_hidden_layers")? as usize,
            num_attention_heads: heads,
            num_key_value_heads: reader.kv_heads(heads)?,
            head_dim: reader.head_dim(hidden_size, heads)?,
            vocab_size: reader.integer("vocab_size")?,
            max_position_embeddings,
            rms_norm_eps: reader.number_or("rms_norm_eps", 1e-6)?,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: reader.flag("tie_word_embeddings")?,
            dtype: reader.dtype()?,
            head,
            labels,
            pad_token_id: reader.id("pad_token_id")?,
            raw,
        })
    }

    /// Returns the config with its weights stored in another element type.
    pub fn with_dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self.raw.remove("torch_dtype");
        self.raw.insert("dtype".into(), json!(dtype.name()));
        self
    }

    /// Returns the config of a scalar reward model with this decoder.
    pub fn with_score_head(self, pad_token_id: Option<u32>) -> Self {
        self.with_labels(&["LABEL_0".to_owned()], pad_token_id)
    }

    /// Returns the config of a reward model that gives one score a label.
    pub fn with_labels(mut self, labels: &[String], pad_token_id: Option<u32>) -> Self {
        self.head = Head::Score;
        self.labels = labels.to_vec();
        let by_id: Map<String, Value> =
            (0..).zip(labels).map(|(id, name): (u32, _)| (id.to_string(), json!(name))).collect();
        let by_name: Map<String, Value> =
            (0..).zip(labels).map(|(id, name): (u32, _)| (name.clone(), json!(id))).collect();
        self = self.untied();
        let keys = [
            ("architectures", json!(["LlamaForSequenceClassification"])),
            ("id2label", Value::Object(by_id)),
            ("label2id", Value::Object(by_name)),
            ("num_labels", json!(labels.len())),
        ];
        self.raw.extend(keys.map(|(key, value)| (key.to_owned(), value)));
        match pad_token_id {
            Some(pad) => self.with_pad(pad),
            None => self,
        }
    }

    /// Returns the config with this id between the rows' ends and the batch's.
    pub fn with_pad(mut self, pad_token_id: u32) -> Self {
        self.pad_token_id = Some(i64::from(pad_token_id));
        self.raw.insert("pad_token_id".into(), json!(pad_token_id));
        self
    }

    /// Returns the config with an output projection of its own.
    pub(crate) fn untied(mut self) -> Self {
        self.tie_word_embeddings = false;
        self.raw.insert("tie_word_embeddings".into(), json!(false));
        self
    }

    /// Lists every tensor of the checkpoint with its shape, by Hugging Face key.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let (h, q, kv) =
            (self.hidden_size, self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let mut list = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, h]),
            ("model.norm.weight".to_owned(), vec![h]),
        ];
        for layer in 0..self.num_hidden_layers {
            let shapes = [
                ("input_layernorm", vec![h]),
                ("self_attn.q_proj", vec![q, h]),
                ("self_attn.k_proj", vec![kv, h]),
                ("self_attn.v_proj", vec![kv, h]),
                ("self_attn.o_proj", vec![h, q]),
                ("post_attention_layernorm", vec![h]),
                ("mlp.gate_proj", vec![self.intermediate_size, h]),
                ("mlp.up_proj", vec![self.intermediate_size, h]),
                ("mlp.down_proj", vec![h, self.intermediate_size]),
            ];
            list.extend(shapes.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
        }
        match self.head {
            Head::Score => list.push(("score.weight".into(), vec![self.labels.len() as i64, h])),
            Head::CausalLm if !self.tie_word_embeddings => {
                list.push(("lm_head.weight".into(), vec![self.vocab_size, h]))
            }
            Head::CausalLm => {}
        }
        list
    }

    /// Counts the parameters.
    pub fn parameters(&self) -> i64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
    }
}
