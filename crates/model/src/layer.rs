//! One decoder layer: grouped-query attention and a gated MLP, each behind an RMS norm.

use tch::{Kind, Tensor};

use crate::{ModelConfig, Result, Weights, cache::LayerCache, rope::rotate};

/// Projections that read the same input: one matrix when stacked, else one a name.
#[derive(Debug)]
struct Projections {
    matrices: Vec<Tensor>,
    sizes: Vec<i64>,
}

impl Projections {
    fn new(weights: &Weights, names: &[String], stacked: bool) -> Result<Self> {
        let parts: Vec<&Tensor> = names.iter().map(|name| weights.get(name)).collect::<Result<_>>()?;
        let sizes = parts.iter().map(|part| part.size()[0]).collect();
        let matrices = if stacked {
            vec![Tensor::cat(&parts, 0)]
        } else {
            parts.iter().map(|part| part.shallow_clone()).collect()
        };
        Ok(Self { matrices, sizes })
    }

    fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        match self.matrices.as_slice() {
            [stacked] if self.sizes.len() > 1 => linear(x, stacked).split_with_sizes(&self.sizes, -1),
            matrices => matrices.iter().map(|matrix| linear(x, matrix)).collect(),
        }
    }
}

/// Weights of one decoder layer.
#[derive(Debug)]
pub(crate) struct Layer {
    input_norm: Tensor,
    qkv: Projections,
    output: Tensor,
    post_norm: Tensor,
    gate_up: Projections,
    down: Tensor,
}

/// What all layers of one forward pass share.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) rope: (Tensor, Tensor),
    /// Additive mask, or `None` for plain causal attention.
    pub(crate) mask: Option<Tensor>,
    /// Where new tokens are written in the cache.
    pub(crate) at: i64,
}

/// Multiplies the last dimension by a `[out, in]` matrix.
pub(crate) fn linear(x: &Tensor, matrix: &Tensor) -> Tensor {
    x.linear(matrix, None::<Tensor>)
}

/// Normalises by the root mean square in float32, then scales, as Hugging Face's `LlamaRMSNorm` does.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    let mean = wide.square().mean_dim(-1i64, true, Kind::Float);
    (wide * (mean + eps).rsqrt()).to_kind(x.kind()) * weight
}

impl Layer {
    pub(crate) fn new(weights: &Weights, index: usize, stacked: bool) -> Result<Self> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let get = |part: &str| weights.get(&name(part)).map(Tensor::shallow_clone);
        let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(name);
        let gate_up = ["mlp.gate_proj", "mlp.up_proj"].map(name);
        Ok(Self {
            input_norm: get("input_layernorm")?,
            qkv: Projections::new(weights, &qkv, stacked)?,
            output: get("self_attn.o_proj")?,
            post_norm: get("post_attention_layernorm")?,
            gate_up: Projections::new(weights, &gate_up, stacked)?,
            down: get("mlp.down_proj")?,
        })
    }

    /// Computes `[B, T, H]` from `[B, T, H]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>, cache: Option<&LayerCache>) -> Tensor {
        let eps = pass.config.rms_norm_eps;
        let x = x + self.attention(&rms_norm(x, &self.input_norm, eps), pass, cache);
        let parts = self.gate_up.forward(&rms_norm(&x, &self.post_norm, eps));
        &x + linear(&(parts[0].silu() * &parts[1]), &self.down)
    }

    fn attention(&self, x: &Tensor, pass: &Pass<'_>, cache: Option<&LayerCache>) -> Tensor {
        let (batch, tokens, _) = x.size3().expect("hidden states are [B, T, H]");
        let dim = pass.config.head_dim;
        let heads = |part: &Tensor| part.view([batch, tokens, -1, dim]).transpose(1, 2); // [B, heads, T, D]
        let parts = self.qkv.forward(x);
        let query = rotate(&heads(&parts[0]), &pass.rope);
        let key = rotate(&heads(&parts[1]), &pass.rope);
        let value = heads(&parts[2]);
        let (key, value) = match cache {
            Some(cache) => cache.append(&key, &value, pass.at),
            None => (key, value),
        };
        let mixed = if tokens == 1 && cache.is_some() {
            attend_one(&query, (&key, &value), pass.mask.as_ref())
        } else {
            attend_many(&query, (&key, &value), pass.mask.as_ref())
        };
        linear(&mixed.transpose(1, 2).reshape([batch, tokens, -1]), &self.output)
    }
}

/// Attends from one new token a row; the heads of a group stand in as query rows, so keys are not repeated.
fn attend_one(query: &Tensor, (key, value): (&Tensor, &Tensor), mask: Option<&Tensor>) -> Tensor {
    let (batch, heads, _, dim) = query.size4().expect("queries are [B, heads, T, D]");
    let kv_heads = key.size()[1];
    let grouped = query.view([batch, kv_heads, heads / kv_heads, dim]);
    Tensor::scaled_dot_product_attention(&grouped, key, value, mask, 0.0, false, None, false)
        .view([batch, heads, 1, dim])
}

/// Attends from several tokens a row: causal, or under an additive mask that includes causality.
fn attend_many(query: &Tensor, (key, value): (&Tensor, &Tensor), mask: Option<&Tensor>) -> Tensor {
    let groups = query.size()[1] / key.size()[1];
    let repeat =
        |x: &Tensor| if groups == 1 { x.shallow_clone() } else { x.repeat_interleave_self_int(groups, 1, None) };
    Tensor::scaled_dot_product_attention(query, &repeat(key), &repeat(value), mask, 0.0, mask.is_none(), None, false)
}
