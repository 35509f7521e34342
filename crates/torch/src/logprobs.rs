//! Log-probs and divergences from hidden rows without whole logits.

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
        unsafe { ffi::joust_logprobs(ffi::raw(rows), ffi::raw(weight), ffi::raw(targets), limits.as_ptr(), 0, out) }
    })?;
    Ok(out)
}

/// What is told of the distribution that each token was drawn from; float32, no gradient.
#[derive(Debug)]
pub struct Spread {
    /// −Σ p·log p in nats, `[N]`.
    pub entropy: Tensor,
    /// log Σ p² in nats, `[N]`: what log π of a token drawn from π is compared with.
    pub log_squares: Tensor,
    /// log p of the `k` most probable tokens in nats, most probable first, `[N, k]`.
    pub top: Tensor,
}

/// As [`logprobs`], with what is told of each whole distribution from the same logits.
///
/// # Arguments
/// * `k` - tokens of [`Spread::top`], from 1 to V.
///
/// # Errors
/// As [`logprobs`], and for a `k` that the vocabulary does not have.
pub fn logprobs_with_spread([rows, weight, targets]: [&Tensor; 3], k: i64, limits: Limits) -> Result<(Tensor, Spread)> {
    if !native(rows) {
        let picked = logprobs(rows, weight, targets, limits)?;
        let log_p = rows.detach().linear(&weight.detach(), None::<Tensor>).to_kind(Kind::Float);
        let log_p = log_p.f_log_softmax(1, Kind::Float)?;
        let entropy = -(log_p.exp() * &log_p).sum_dim_intlist(1i64, false, Kind::Float);
        let log_squares = (&log_p * 2.0).logsumexp(1i64, false);
        let (top, _) = log_p.f_topk(k, 1, true, true)?;
        return Ok((picked, Spread { entropy, log_squares, top }));
    }
    let limits = [limits.slice, limits.kept];
    let [rows, weight, targets] = [rows, weight, targets].map(ffi::raw);
    let [picked, entropy, log_squares, top] = ffi::own("logprobs", |out| {
        // SAFETY: the tensors and the two limits outlive the call and `out` has room for four.
        unsafe { ffi::joust_logprobs(rows, weight, targets, limits.as_ptr(), k.max(1), out) }
    })?;
    Ok((picked, Spread { entropy, log_squares, top }))
}

/// Computes `Σ_v q(v)·(log q(v) − log p(v))` in nats of each row, float32 `[N]`: p of rows `[N, H]` under the output matrix `[V, H]`, q of rows under a
/// matrix of their own, which carry no gradient.
///
/// A few rows are computed at a time, and again for the gradient, so that no more than `slice` logits of p and as many of q are held at once.
///
/// # Errors
/// [`crate::Error::Cpp`] if the shapes do not fit.
pub fn divergence([rows, weight]: [&Tensor; 2], held: [&Tensor; 2], slice: i64) -> Result<Tensor> {
    if !native(rows) {
        let log = |rows: &Tensor, weight: &Tensor| rows.linear(weight, None::<Tensor>).log_softmax(1, Kind::Float);
        let (log_p, log_q) = (log(rows, weight), log(held[0], held[1]).detach());
        return Ok((log_q.exp() * (log_q - log_p)).sum_dim_intlist(1i64, false, Kind::Float));
    }
    let [p_rows, p_weight, q_rows, q_weight] = [rows, weight, held[0], held[1]].map(ffi::raw);
    let [out] = ffi::own("divergence", |out| {
        // SAFETY: the tensors outlive the call and `out` has room for one.
        unsafe { ffi::joust_divergence(p_rows, p_weight, q_rows, q_weight, slice, out) }
    })?;
    Ok(out)
}
