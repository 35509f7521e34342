//! `config.json` of a Llama-type folder, of today (`dtype`, `rope_parameters`) and of before (`torch_dtype`, `rope_scaling`).

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, Result};

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
    /// Every key of the file.
    pub raw: Map<String, Value>,
}

/// Reads typed values out of the raw map, naming file and key in errors.
struct Reader<'a> {
    path: &'a Path,
    raw: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn error(&self, key: &str, expected: &str) -> Error {
        let value = self.raw.get(key).map_or("missing".into(), Value::to_string);
        Error::Config { path: self.path.into(), key: key.into(), value, expected: expected.into() }
    }

    fn present(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|value| !value.is_null())
    }

    fn integer(&self, key: &str) -> Result<i64> {
        let value = self.raw.get(key).and_then(Value::as_i64).filter(|value| *value > 0);
        value.ok_or_else(|| self.error(key, "expected a positive integer"))
    }

    fn integer_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.present(key).is_some() { self.integer(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.present(key) {
            None => Ok(default),
            Some(value) => {
                value.as_f64().filter(|v| *v > 0.0).ok_or_else(|| self.error(key, "expected a positive number"))
            }
        }
    }

    fn must_be(&self, key: &str, wanted: Value, why: &str) -> Result<()> {
        match self.present(key) {
            Some(value) if *value != wanted => Err(self.error(key, why)),
            _ => Ok(()),
        }
    }

    /// Reads the names of the labels; without any a score head has one.
    fn labels(&self) -> Result<Vec<String>> {
        let named = self.present("id2label").and_then(Value::as_object);
        let count = self.integer_or("num_labels", named.map_or(1, Map::len) as i64)?;
        let Some(named) = named else { return Ok((0..count).map(|id| format!("LABEL_{id}")).collect()) };
        if named.len() as i64 != count {
            return Err(self.error("num_labels", &format!("id2label names {} labels", named.len())));
        }
        let name = |id: i64| named.get(&id.to_string()).and_then(Value::as_str).map(str::to_owned);
        let names: Option<Vec<String>> = (0..count).map(name).collect();
        names.ok_or_else(|| self.error("id2label", "its keys are the numbers from 0 on, its values names"))
    }

    fn head(&self) -> Result<Head> {
        let first = self.raw.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        match first {
            Some("LlamaForCausalLM") => Ok(Head::CausalLm),
            Some("LlamaForSequenceClassification") => Ok(Head::Score),
            _ => Err(self.error("architectures", "supported are LlamaForCausalLM and LlamaForSequenceClassification")),
        }
    }

    fn dtype(&self) -> Result<Dtype> {
        let key = if self.present("dtype").is_some() { "dtype" } else { "torch_dtype" };
        match self.present(key) {
            None => Ok(Dtype::Float32),
            Some(value) => value
                .as_str()
                .and_then(Dtype::parse)
                .ok_or_else(|| self.error(key, "supported are float32 and bfloat16; convert the weights")),
        }
    }

    fn rope(&self) -> Result<(f64, RopeScaling)> {
        let key = if self.present("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let empty = Map::new();
        let table = self.present(key).and_then(Value::as_object).unwrap_or(&empty);
        let number = |name: &str| table.get(name).and_then(Value::as_f64);
        let needed = |name: &str| number(name).ok_or_else(|| self.error(key, &format!("it lacks {name}")));
        let theta = match number("rope_theta") {
            Some(theta) => theta,
            None => self.number_or("rope_theta", 10_000.0)?,
        };
        let kind = table.get("rope_type").or_else(|| table.get("type")).and_then(Value::as_str).unwrap_or("default");
        let scaling = match kind {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: needed("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original: needed("original_max_position_embeddings")?,
            },
            _ => return Err(self.error(key, "supported rope types are default, linear and llama3")),
        };
        Ok((theta, scaling))
    }
}

impl ModelConfig {
    /// Parses the keys of `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] for a missing key, a value out of range, or an architecture that is not supported.
    pub fn parse(path: &Path, raw: Map<String, Value>) -> Result<Self> {
        let reader = Reader { path, raw: &raw };
        let head = reader.head()?;
        reader.must_be("hidden_act", json!("silu"), "supported is silu")?;
        reader.must_be("attention_bias", json!(false), "supported is false")?;
        reader.must_be("mlp_bias", json!(false), "supported is false")?;
        let hidden_size = reader.integer("hidden_size")?;
        let heads = reader.integer("num_attention_heads")?;
        let kv_heads = reader.integer_or("num_key_value_heads", heads)?;
        if heads % kv_heads != 0 {
            return Err(reader.error("num_key_value_heads", "it must divide num_attention_heads"));
        }
        if reader.present("head_dim").is_none() && hidden_size % heads != 0 {
            return Err(reader.error("num_attention_heads", "it must divide hidden_size"));
        }
        let (rope_theta, rope_scaling) = reader.rope()?;
        let labels = if head == Head::Score { reader.labels()? } else { Vec::new() };
        Ok(Self {
            hidden_size,
            intermediate_size: reader.integer("intermediate_size")?,
            num_hidden_layers: reader.integer("num_hidden_layers")? as usize,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: reader.integer_or("head_dim", hidden_size / heads)?,
            vocab_size: reader.integer("vocab_size")?,
            max_position_embeddings: reader.integer_or("max_position_embeddings", 2048)?,
            rms_norm_eps: reader.number_or("rms_norm_eps", 1e-6)?,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: reader.present("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            dtype: reader.dtype()?,
            head,
            labels,
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
        self.tie_word_embeddings = false;
        let keys = [
            ("architectures", json!(["LlamaForSequenceClassification"])),
            ("tie_word_embeddings", json!(false)),
            ("id2label", Value::Object(by_id)),
            ("label2id", Value::Object(by_name)),
            ("num_labels", json!(labels.len())),
        ];
        self.raw.extend(keys.map(|(key, value)| (key.to_owned(), value)));
        if let Some(pad) = pad_token_id {
            self.raw.insert("pad_token_id".into(), json!(pad));
        }
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
