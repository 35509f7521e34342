//! Log-probs from hidden rows without whole logits, and compute copies of master weights.

use tch::{Kind, Tensor};

use crate::{Result, ffi, native};

/// How much of the logits `[N, V]` is held at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Logits of one slice of the vocabulary.
    pub slice: i64,
    /// Logits kept for the backward pass; slices beyond are computed again.
    pub kept: i64,
}

impl Default for Limits {
    /// 8 Mi logits a slice: enough for the matrix product, and in reach of the cache. 128 Mi kept: 256 MiB in bfloat16.
    fn default() -> Self {
        Self { slice: 1 << 23, kept: 1 << 27 }
    }
}

/// Computes log π(target) in nats, float32 `[N]`, of rows `[N, H]` under the output matrix `[V, H]`.
///
/// The vocabulary is read in slices, so that the logits are never held whole beyond `limits`; softmax and sums run in float32.
///
/// # Errors
/// [`crate::Error::Cpp`] if the shapes do not fit or targets are not int64.
pub fn logprobs(rows: &Tensor, weight: &Tensor, targets: &Tensor, limits: Limits) -> Result<Tensor> {
    if !native(rows) {
        let logits = rows.linear(weight, None::<Tensor>).to_kind(Kind::Float);
        let picked = logits.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1);
        return Ok(picked - logits.logsumexp(1i64, false));
    }
    let limits = [limits.slice, limits.kept];
    let [out] = ffi::own("logprobs", |out| {
        // SAFETY: the tensors and the two limits outlive the call and `out` has room for one.
        unsafe { ffi::joust_logprobs(ffi::raw(rows), ffi::raw(weight), ffi::raw(targets), limits.as_ptr(), out) }
    })?;
    Ok(out)
}

/// Returns a tensor that stands for one to three `masters`, stacked by rows, with the values of `copy`.
///
/// Its gradient is added to the masters' own gradients, in the masters' kind. The caller keeps `copy` equal to the masters.
///
/// # Errors
/// [`crate::Error::Cpp`] if there are more masters.
pub fn compute_copy(copy: &Tensor, masters: &[&Tensor]) -> Result<Tensor> {
    let raw: Vec<ffi::Raw> = masters.iter().map(|master| ffi::raw(master)).collect();
    let [out] = ffi::own("compute_copy", |out| {
        // SAFETY: the masters outlive the call, which copies their handles; `out` has room for one.
        unsafe { ffi::joust_compute_copy(ffi::raw(copy), raw.as_ptr(), raw.len() as i64, out) }
    })?;
    Ok(out)
}

/// Drops the gradient of a leaf, memory included.
///
/// # Errors
/// [`crate::Error::Cpp`] if libtorch refuses.
pub fn clear_grad(leaf: &Tensor) -> Result<()> {
    // SAFETY: the tensor outlives the call.
    ffi::check("clear_grad", unsafe { ffi::joust_clear_grad(ffi::raw(leaf)) })
}

/// Returns how often the tensor's memory was written in place, through it or through a detached view of it.
pub fn version(tensor: &Tensor) -> i64 {
    // SAFETY: the tensor outlives the call, which reads a counter.
    unsafe { ffi::joust_version(ffi::raw(tensor)) }
}
