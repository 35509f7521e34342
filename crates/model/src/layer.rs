//! One decoder layer: grouped-query attention and a gated MLP, each behind an RMS norm.

use std::rc::Rc;

use joust_torch::{Past, RopeHeads, add_rms_norm, attend_one, can_attend, recomputed, rms_norm, rope, swiglu};
use tch::{Kind, Tensor};

use crate::{
    Packing, Result, Weights,
    cache::LayerCache,
    lora::Parts,
    matrix::{Matrix, Projection, SHAPES},
    weights::STACKS,
};

/// Returns the projections that read one input as one matrix: the stacked one if the weights hold it, else a new one.
fn stacked(weights: &Weights, stack: &str, names: &[String]) -> Result<Tensor> {
    if let Ok(whole) = weights.get(stack) {
        return Ok(whole.shallow_clone());
    }
    let parts: Vec<&Tensor> = names.iter().map(|name| weights.get(name)).collect::<Result<_>>()?;
    Ok(Tensor::cat(&parts, 0))
}

/// Weights of one decoder layer.
#[derive(Debug)]
pub(crate) struct Layer {
    input_norm: Tensor,
    qkv: Projection,
    output: Projection,
    post_norm: Tensor,
    gate_up: Projection,
    down: Projection,
}

/// What all layers of one forward pass share.
pub(crate) struct Pass {
    pub(crate) heads: i64,
    pub(crate) kv_heads: i64,
    pub(crate) eps: f64,
    pub(crate) rope: (Tensor, Tensor),
    /// Additive mask, or `None` for plain causal attention.
    pub(crate) mask: Option<Tensor>,
    /// Scores are held whole; the mask is then `[T, T]`.
    pub(crate) whole: bool,
    /// Left padding of each row, `[B]`, if any has some.
    pub(crate) padding: Option<Tensor>,
    /// Where new tokens are written in the cache.
    pub(crate) at: i64,
    /// Where packed tokens stand in their sequences; the stream is then `[1, N, H]`.
    pub(crate) packing: Option<Packing>,
}

/// The residual stream and what the last block adds to it; the sum is made together with the next norm.
pub(crate) struct Stream {
    pub(crate) x: Tensor,
    pub(crate) more: Option<Tensor>,
}

impl Stream {
    /// Returns the sum with what is waiting.
    pub(crate) fn sum(&self) -> Tensor {
        self.more.as_ref().map_or_else(|| self.x.shallow_clone(), |more| &self.x + more)
    }

    /// Adds what is waiting and returns the normalised sum.
    pub(crate) fn normed(&mut self, weight: &Tensor, eps: f64) -> Tensor {
        let Some(more) = self.more.take() else {
            return rms_norm(&self.x, weight, eps).expect(SHAPES);
        };
        let (sum, out) = add_rms_norm(&self.x, &more, weight, eps).expect(SHAPES);
        self.x = sum;
        out
    }
}

impl Layer {
    pub(crate) fn new(weights: &Weights, index: usize, packed: bool) -> Result<Self> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let get = |part: &str| weights.get(&name(part)).map(Tensor::shallow_clone);
        let [qkv, gate_up] = STACKS.map(|(stack, parts)| {
            stacked(weights, &name(stack), &parts.iter().map(|part| name(part)).collect::<Vec<_>>())
        });
        let projection = |matrix: Tensor| Matrix::new(matrix, packed).map(Projection::plain);
        Ok(Self {
            input_norm: get("input_layernorm")?,
            qkv: projection(qkv?)?,
            output: projection(get("self_attn.o_proj")?)?,
            post_norm: get("post_attention_layernorm")?,
            gate_up: projection(gate_up?)?,
            down: projection(get("mlp.down_proj")?)?,
        })
    }

    /// Returns the layer on the same matrices, with these adapters instead of its own.
    pub(crate) fn adapted(&self, parts: &Parts<'_>) -> Result<Self> {
        let [qkv, gate_up] = STACKS.map(|(_, names)| names);
        Ok(Self {
            input_norm: self.input_norm.shallow_clone(),
            qkv: self.qkv.adapted(parts.of(qkv)?)?,
            output: self.output.adapted(parts.of(&["self_attn.o_proj"])?)?,
            post_norm: self.post_norm.shallow_clone(),
            gate_up: self.gate_up.adapted(parts.of(gate_up)?)?,
            down: self.down.adapted(parts.of(&["mlp.down_proj"])?)?,
        })
    }

    /// Returns another handle on the same matrices and adapters.
    fn share(&self) -> Self {
        Self {
            input_norm: self.input_norm.shallow_clone(),
            qkv: self.qkv.share(),
            output: self.output.share(),
            post_norm: self.post_norm.shallow_clone(),
            gate_up: self.gate_up.share(),
            down: self.down.share(),
        }
    }

    /// Returns the layer on the same matrices, without adapters.
    pub(crate) fn base(&self) -> Self {
        Self {
            input_norm: self.input_norm.shallow_clone(),
            qkv: self.qkv.base(),
            output: self.output.base(),
            post_norm: self.post_norm.shallow_clone(),
            gate_up: self.gate_up.base(),
            down: self.down.base(),
        }
    }

    /// As [`Self::forward`] of whole rows, keeping only the stream before the layer for the backward pass, which runs the layer again.
    pub(crate) fn forward_again(&self, stream: &mut Stream, pass: &Rc<Pass>) {
        let (layer, pass) = (self.share(), pass.clone());
        let piece = move |x: &Tensor, more: Option<&Tensor>| {
            let mut stream = Stream { x: x.shallow_clone(), more: more.map(Tensor::shallow_clone) };
            layer.forward(&mut stream, &pass, None);
            [stream.x, stream.more.expect("a layer leaves something to add")]
        };
        let [x, more] = recomputed(&stream.x, stream.more.as_ref(), piece).expect(SHAPES);
        *stream = Stream { x, more: Some(more) };
    }

    /// Runs `[B, T, H]` through attention and MLP.
    pub(crate) fn forward(&self, stream: &mut Stream, pass: &Pass, cache: Option<&LayerCache>) {
        let eps = pass.eps;
        let normed = stream.normed(&self.input_norm, eps);
        stream.more = Some(self.attention(&normed, pass, cache));
        let normed = stream.normed(&self.post_norm, eps);
        stream.more = Some(self.down.linear(&swiglu(&self.gate_up.linear(&normed)).expect(SHAPES)));
    }

    fn attention(&self, x: &Tensor, pass: &Pass, cache: Option<&LayerCache>) -> Tensor {
        let qkv = self.qkv.linear(x);
        let qkv = pass.packing.as_ref().map_or(qkv.shallow_clone(), |packing| packing.spread(&qkv));
        let (batch, tokens, _) = qkv.size3().expect("hidden states are [B, T, H]");
        let heads = RopeHeads { heads: pass.heads, kv_heads: pass.kv_heads, repeat: cache.is_none() };
        if let Some(cache) = cache.filter(|_| tokens == 1 && can_attend(&qkv)) {
            let past = Past { keys: &cache.keys, values: &cache.values, padding: pass.padding.as_ref(), at: pass.at };
            return self.output.linear(&attend_one(&qkv, &pass.rope, past, heads.heads).expect(SHAPES));
        }
        let [query, key, value] = rope(&qkv, &pass.rope, heads).expect(SHAPES);
        let (key, value) = match cache {
            Some(cache) => cache.append(&key, &value, pass.at),
            None => (key, value),
        };
        let mixed = attend(&query, (&key, &value), pass).transpose(1, 2).reshape([batch, tokens, -1]);
        let mixed = pass.packing.as_ref().map_or(mixed.shallow_clone(), |packing| packing.collect(&mixed));
        self.output.linear(&mixed)
    }
}

/// Longest rows, in tokens, whose scores are held whole in bfloat16 on a CPU.
///
/// libtorch's blocked attention makes one oneDNN primitive for each block of each head there; up to here, whole products take
/// 0.3 to 0.6 of its time forward and backward.
pub(crate) const WHOLE_TOKENS: i64 = 512;

/// Attends from several tokens a row: causal, or under an additive mask that includes causality.
fn attend(query: &Tensor, (key, value): (&Tensor, &Tensor), pass: &Pass) -> Tensor {
    let groups = query.size()[1] / key.size()[1];
    let repeat =
        |x: &Tensor| if groups == 1 { x.shallow_clone() } else { x.repeat_interleave_self_int(groups, 1, None) };
    let (key, value, mask) = (repeat(key), repeat(value), pass.mask.as_ref());
    if let Some(mask) = mask.filter(|_| pass.whole) {
        return attend_whole(query, (&key, &value), mask);
    }
    // One new token looks at all that lies before it; "causal" would let it see the first token only.
    let causal = mask.is_none() && query.size()[2] > 1;
    Tensor::scaled_dot_product_attention(query, &key, &value, mask, 0.0, causal, None, false)
}

/// Attends through whole score matrices, `mask` `[T, T]` added; scores are rounded as Hugging Face's eager attention does.
fn attend_whole(query: &Tensor, (key, value): (&Tensor, &Tensor), mask: &Tensor) -> Tensor {
    let (batch, heads, tokens, dim) = query.size4().expect("queries are [B, heads, T, D]");
    let flat = |x: &Tensor| x.reshape([batch * heads, tokens, dim]);
    let mask = mask.expand([batch * heads, tokens, tokens], false);
    let scale = 1.0 / (dim as f64).sqrt();
    let scores = mask.baddbmm(&flat(query), &flat(key).transpose(1, 2), 1.0, scale);
    scores.softmax(-1, None::<Kind>).bmm(&flat(value)).view([batch, heads, tokens, dim])
}
