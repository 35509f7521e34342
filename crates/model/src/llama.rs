//! The decoder: embedding, layers, final norm and head, over whole sequences or with a KV cache.
//!
//! See "LLaMA: Open and Efficient Foundation Language Models", Touvron et al., <https://arxiv.org/abs/2302.13971>.

use std::rc::Rc;

use joust_torch::Limits;
use tch::{Kind, Tensor};

use crate::{
    Adapter, DropoutKey, Head, KvCache, LoraConfig, ModelConfig, Packing, Result, Weights,
    cache::LayerCache,
    layer::{Layer, Pass, Stream, WHOLE_TOKENS},
    lora::Parts,
    matrix::{Matrix, linear},
    rope::Rope,
};

/// A decoder over given weights; it holds no gradients of its own.
#[derive(Debug)]
pub struct Llama {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    /// The head for sampling, in the layout of [`Matrix`].
    decode_head: Matrix,
    rope: Rope,
    /// Shape of the adapter that is added, if one is.
    lora: Option<LoraConfig>,
    /// Whether the backward pass runs layers again instead of keeping what lies in them.
    recomputes: bool,
}

impl Llama {
    /// Builds the decoder on the given tensors, which stay the leaves of gradients.
    ///
    /// Projections of one input are stacked into one matrix each, a copy unless the weights hold it under
    /// [`Weights::stacked_keys`].
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if a tensor is missing.
    pub fn new(config: &ModelConfig, weights: &Weights) -> Result<Self> {
        Self::build(config, weights, false)
    }

    /// Builds the decoder for sampling: matrices are laid out for few rows, and nothing is recorded for gradients.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if a tensor is missing.
    pub fn for_sampling(config: &ModelConfig, weights: &Weights) -> Result<Self> {
        tch::no_grad(|| Self::build(config, weights, true))
    }

    fn build(config: &ModelConfig, weights: &Weights, packed: bool) -> Result<Self> {
        let embedding = weights.get("model.embed_tokens.weight")?.shallow_clone();
        let head = match config.head {
            Head::Score => weights.get("score.weight")?.shallow_clone(),
            Head::CausalLm if config.tie_word_embeddings => embedding.shallow_clone(),
            Head::CausalLm => weights.get("lm_head.weight")?.shallow_clone(),
        };
        let layers = (0..config.num_hidden_layers).map(|i| Layer::new(weights, i, packed)).collect::<Result<_>>()?;
        Ok(Self {
            rope: Rope::new(config, embedding.kind(), embedding.device()),
            config: config.clone(),
            layers,
            norm: weights.get("model.norm.weight")?.shallow_clone(),
            embedding,
            decode_head: Matrix::new(head.shallow_clone(), packed)?,
            head,
            lora: None,
            recomputes: false,
        })
    }

    /// Returns the decoder on the same memory with an adapter added, instead of its own if it has one; a decoder for sampling stays one.
    ///
    /// Gradients reach the adapter's tensors. With a key its inputs are dropped as its config says; without one they never are.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if the adapter lacks a tensor.
    pub fn with_adapter(&self, adapter: &Adapter, dropout: Option<DropoutKey>) -> Result<Self> {
        let of = (&self.config, self.embedding.kind());
        let layers = self.layers.iter().enumerate();
        let adapted = |(index, layer): (usize, &Layer)| layer.adapted(&Parts::new(adapter, of, index, dropout));
        Ok(self.on(layers.map(adapted).collect::<Result<_>>()?, Some(adapter.config.clone())))
    }

    /// Returns another handle on the same memory, without the adapter.
    pub fn base(&self) -> Self {
        self.on(self.layers.iter().map(Layer::base).collect(), None)
    }

    /// Shares everything but the layers.
    fn on(&self, layers: Vec<Layer>, lora: Option<LoraConfig>) -> Self {
        Self {
            config: self.config.clone(),
            embedding: self.embedding.shallow_clone(),
            layers,
            norm: self.norm.shallow_clone(),
            head: self.head.shallow_clone(),
            decode_head: self.decode_head.share(),
            rope: self.rope.share(),
            lora,
            recomputes: self.recomputes,
        }
    }

    /// Keeps only the states between layers for the backward pass, which runs each layer again; about a third more operations.
    #[must_use]
    pub fn recomputing(self, recomputes: bool) -> Self {
        Self { recomputes, ..self }
    }

    /// Returns the shape of the adapter that is added, if one is.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// Returns the shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the device that holds the weights.
    pub fn device(&self) -> tch::Device {
        self.embedding.device()
    }

    /// Computes the normalised hidden states `[B, T, H]` of ids `[B, T]` (int64).
    ///
    /// Attention is causal over whole rows: rows shorter than T are padded on the right, where nothing real looks.
    pub fn hidden(&self, ids: &Tensor) -> Tensor {
        self.whole_rows((ids, ids.size()[1]), None, &mut |_| {})
    }

    /// Computes the normalised hidden states `[N, H]` of packed sequences, and shows `each` the residual stream `[1, N, H]` after every layer, from the
    /// first on.
    pub(crate) fn hidden_packed(&self, packing: &Packing, each: &mut dyn FnMut(&Stream)) -> Tensor {
        self.whole_rows((&packing.ids().unsqueeze(0), packing.width()), Some(packing), each).squeeze_dim(0)
    }

    /// Starts a pass over whole rows under plain causality.
    fn pass(&self, rope: (Tensor, Tensor)) -> Pass {
        Pass {
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            eps: self.config.rms_norm_eps,
            rope,
            mask: None,
            whole: false,
            padding: None,
            at: 0,
            packing: None,
        }
    }

    fn whole_rows(
        &self,
        (ids, tokens): (&Tensor, i64),
        packing: Option<&Packing>,
        each: &mut dyn FnMut(&Stream),
    ) -> Tensor {
        let (kind, device) = (self.embedding.kind(), ids.device());
        let rope = self.rope.at(&Tensor::arange(tokens, (Kind::Int64, device)));
        let whole = kind == Kind::BFloat16 && device == tch::Device::Cpu && tokens <= WHOLE_TOKENS;
        let mask = whole.then(|| Tensor::full([tokens, tokens], f64::NEG_INFINITY, (kind, device)).triu(1));
        let packing = packing.map(Packing::share);
        let pass = Rc::new(Pass { mask, whole, packing, ..self.pass(rope) });
        let mut stream = self.embed(ids);
        for layer in &self.layers {
            match self.recomputes {
                true => layer.forward_again(&mut stream, &pass),
                false => layer.forward(&mut stream, &pass, None),
            }
            each(&stream);
        }
        stream.normed(&self.norm, self.config.rms_norm_eps)
    }

    /// Returns the head's matrix, `[V, H]`, or `[labels, H]` of a reward model.
    pub fn head_weight(&self) -> &Tensor {
        &self.head
    }

    /// Computes the head's output of hidden states `[.., H]`: logits `[.., V]`, or scores `[.., 1]`, in the weights' kind.
    pub fn head(&self, hidden: &Tensor) -> Tensor {
        linear(hidden, &self.head)
    }

    /// Reads left-padded prompts `[B, T]` (int64; `padding` `[B]` int64 tokens of each row) into a new cache.
    ///
    /// # Returns
    /// The cache with room for `capacity` tokens a row, and the logits `[B, V]` (float32) after the last token.
    pub fn prefill(&self, ids: &Tensor, padding: &Tensor, capacity: i64) -> (KvCache, Tensor) {
        let (batch, tokens) = ids.size2().expect("prompt ids are [B, T]");
        let kind = self.embedding.kind();
        let shape = [batch, capacity, self.config.num_key_value_heads, self.config.head_dim];
        let empty = || Tensor::zeros(shape, (kind, ids.device()));
        let padded = padding.max().int64_value(&[]) > 0;
        let slots = Tensor::arange(capacity, (Kind::Int64, ids.device()));
        let mask = padded.then(|| {
            let hidden = slots.unsqueeze(0).lt_tensor(&padding.unsqueeze(1)); // [B, capacity]
            let zeros = Tensor::zeros([batch, capacity], (kind, ids.device()));
            zeros.masked_fill(&hidden, f64::NEG_INFINITY).view([batch, 1, 1, capacity])
        });
        let mut cache = KvCache {
            layers: (0..self.layers.len()).map(|_| LayerCache { keys: empty(), values: empty() }).collect(),
            length: 0,
            mask,
            padding: padding.shallow_clone(),
        };
        let logits = self.step(ids, &mut cache, tokens);
        (cache, logits)
    }

    /// Reads one more token a row, ids `[B]` (int64), and returns the logits `[B, V]` (float32) after it.
    pub fn decode(&self, ids: &Tensor, cache: &mut KvCache) -> Tensor {
        self.step(&ids.unsqueeze(1), cache, 1)
    }

    fn step(&self, ids: &Tensor, cache: &mut KvCache, tokens: i64) -> Tensor {
        let at = cache.length;
        let slots = Tensor::arange_start(at, at + tokens, (Kind::Int64, ids.device()));
        let rope = if cache.mask.is_none() {
            self.rope.at(&slots)
        } else {
            // Padding would lie before position 0 and a finished row past the context; nothing reads either.
            let last = self.config.max_position_embeddings - 1;
            self.rope.at(&(slots.unsqueeze(0) - cache.padding.unsqueeze(1)).clamp(0, last))
        };
        let mask = cache.mask.as_ref().map(|mask| step_mask(mask, at, tokens));
        let padding = cache.mask.is_some().then(|| cache.padding.shallow_clone());
        let pass = Pass { mask, padding, at, ..self.pass(rope) };
        let mut stream = self.embed(ids);
        for (layer, layer_cache) in self.layers.iter().zip(&cache.layers) {
            layer.forward(&mut stream, &pass, Some(layer_cache));
        }
        cache.length += tokens;
        let last = |x: &Tensor| x.narrow(1, tokens - 1, 1).squeeze_dim(1);
        let mut stream = Stream { x: last(&stream.x), more: stream.more.as_ref().map(last) };
        self.decode_head.wide(&stream.normed(&self.norm, self.config.rms_norm_eps))
    }

    fn embed(&self, ids: &Tensor) -> Stream {
        Stream { x: Tensor::embedding(&self.embedding, ids, -1, false, false), more: None }
    }
}

/// Cuts the rows' padding mask to what one pass sees, with causality where several tokens are read at once.
fn step_mask(mask: &Tensor, at: i64, tokens: i64) -> Tensor {
    let seen = mask.narrow(3, 0, at + tokens);
    if tokens == 1 {
        return seen;
    }
    let future = Tensor::full([tokens, at + tokens], f64::NEG_INFINITY, (seen.kind(), seen.device())).triu(at + 1);
    // A padding row would see nothing at all and turn into NaN; letting it see itself changes no real token.
    let own = Tensor::eye_m(tokens, at + tokens, (Kind::Bool, seen.device()));
    (seen + future).masked_fill(&own, 0.0)
}

/// Computes log π(target) in nats, float32 `[N]`, from hidden rows `[N, H]` and target ids `[N]` (int64).
///
/// Log-softmax runs in float32 whatever the kind of the weights, over slices of the vocabulary.
pub fn sequence_logprobs(model: &Llama, rows: &Tensor, targets: &Tensor) -> Tensor {
    joust_torch::logprobs(rows, &model.head, targets, Limits::default()).expect("rows and targets are as many")
}
