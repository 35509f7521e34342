//! Norm, gate and rotary embedding of a decoder layer, each one pass forward and one backward.

use tch::{Kind, Tensor};

use crate::{Result, ffi, native};

/// Normalises by the root mean square, then scales by `weight` `[H]`, as Hugging Face's `LlamaRMSNorm` does.
///
/// # Errors
/// [`crate::Error::Cpp`] if the shapes do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if !native(x) {
        return Ok(plain_norm(x, weight, eps));
    }
    let [out] = ffi::own("rms_norm", |out| {
        // SAFETY: the tensors outlive the call, a null `add` is allowed, and `sum` is then not written.
        unsafe { ffi::joust_norm(ffi::raw(x), std::ptr::null(), ffi::raw(weight), eps, out, std::ptr::null_mut()) }
    })?;
    Ok(out)
}

/// Adds `more` to `x`, both `[.., H]`, and normalises the sum.
///
/// # Returns
/// The sum and its RMS norm scaled by `weight`.
///
/// # Errors
/// [`crate::Error::Cpp`] if the shapes do not fit.
pub fn add_rms_norm(x: &Tensor, more: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    if !native(x) {
        let sum = x + more;
        let out = plain_norm(&sum, weight, eps);
        return Ok((sum, out));
    }
    let [sum, out] = ffi::own("add_rms_norm", |made| {
        // SAFETY: the tensors outlive the call; `made` has room for two, the sum first.
        unsafe { ffi::joust_norm(ffi::raw(x), ffi::raw(more), ffi::raw(weight), eps, made.add(1), made) }
    })?;
    Ok((sum, out))
}

fn plain_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    let mean = wide.square().mean_dim(-1i64, true, Kind::Float);
    (wide * (mean + eps).rsqrt()).to_kind(x.kind()) * weight
}

/// Computes `silu(gate) · up` `[.., I]` from gate and up side by side, `[.., 2·I]`.
///
/// # Errors
/// [`crate::Error::Cpp`] if libtorch refuses.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    if !native(gate_up) {
        let parts = gate_up.chunk(2, -1);
        return Ok(parts[0].silu() * &parts[1]);
    }
    // SAFETY: the tensor outlives the call and `out` has room for one.
    let [out] = ffi::own("swiglu", |out| unsafe { ffi::joust_gate(ffi::raw(gate_up), out) })?;
    Ok(out)
}

/// Heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RopeHeads {
    /// Query heads.
    pub heads: i64,
    /// Key and value heads; it divides `heads`.
    pub kv_heads: i64,
    /// Repeats keys and values, so that there is one of each for every query head.
    pub repeat: bool,
}

/// Splits `qkv` `[B, T, (heads + 2·kv_heads)·D]` into heads and rotates queries and keys.
///
/// # Arguments
/// * `tables` - cosines and sines, `[T, D]` shared by the batch or `[B, 1, T, D]`, in the kind of `qkv`.
///
/// # Returns
/// Queries, keys and values, `[B, heads, T, D]`.
///
/// # Errors
/// [`crate::Error::Cpp`] if the shapes do not fit.
pub fn rope(qkv: &Tensor, tables: &(Tensor, Tensor), heads: RopeHeads) -> Result<[Tensor; 3]> {
    if !native(qkv) {
        return Ok(plain_rope(qkv, tables, heads));
    }
    let shape = [heads.heads, heads.kv_heads, i64::from(heads.repeat)];
    ffi::own("rope", |out| {
        // SAFETY: tensors and shape outlive the call, C++ reads three numbers and writes three tensors.
        unsafe { ffi::joust_rope(ffi::raw(qkv), ffi::raw(&tables.0), ffi::raw(&tables.1), shape.as_ptr(), out) }
    })
}

fn plain_rope(qkv: &Tensor, (cos, sin): &(Tensor, Tensor), heads: RopeHeads) -> [Tensor; 3] {
    let RopeHeads { heads, kv_heads, repeat } = heads;
    let size = qkv.size();
    let dim = size[2] / (heads + 2 * kv_heads);
    let parts = qkv.view([size[0], size[1], heads + 2 * kv_heads, dim]).transpose(1, 2);
    let turn = |x: Tensor| {
        let turned = Tensor::cat(&[&x.narrow(3, dim / 2, dim / 2).neg(), &x.narrow(3, 0, dim / 2)], 3);
        x * cos + turned * sin
    };
    let spread = |x: Tensor| {
        if repeat && heads > kv_heads { x.repeat_interleave_self_int(heads / kv_heads, 1, None) } else { x }
    };
    let key = turn(parts.narrow(1, heads, kv_heads));
    let value = parts.narrow(1, heads + kv_heads, kv_heads);
    [turn(parts.narrow(1, 0, heads)), spread(key), spread(value)]
}
