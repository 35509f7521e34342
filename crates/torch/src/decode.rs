//! What sampling adds: matrices packed for few rows, attention of one new token a row, and draws from logits.

use tch::{Kind, Tensor};

use crate::{Result, ffi, native};

/// A bfloat16 matrix laid out for products with few rows.
#[derive(Debug)]
pub struct Packed {
    blocks: Tensor,
    outputs: i64,
}

impl Packed {
    /// Packs a matrix `[out, in]`; `None` if this CPU, or the matrix's kind or width, has no use for it.
    ///
    /// # Errors
    /// [`crate::Error::Cpp`] if libtorch refuses.
    pub fn new(matrix: &Tensor) -> Result<Option<Self>> {
        let size = matrix.size();
        // SAFETY: the function takes no argument.
        let able = unsafe { ffi::joust_can_pack() };
        if !able || !native(matrix) || matrix.kind() != Kind::BFloat16 || size.len() != 2 || size[1] % 2 != 0 {
            return Ok(None);
        }
        // SAFETY: the matrix outlives the call and `out` has room for one.
        let [blocks] = ffi::own("pack", |out| unsafe { ffi::joust_pack(ffi::raw(matrix), out) })?;
        Ok(Some(Self { blocks, outputs: size[0] }))
    }

    /// Returns another handle on the same memory.
    pub fn share(&self) -> Self {
        Self { blocks: self.blocks.shallow_clone(), outputs: self.outputs }
    }

    /// Multiplies bfloat16 rows `[.., in]` by the matrix; `[.., out]` in bfloat16 or, if `wide`, in float32.
    ///
    /// # Errors
    /// [`crate::Error::Cpp`] if the rows have another width or kind.
    pub fn linear(&self, x: &Tensor, wide: bool) -> Result<Tensor> {
        self.product(x, [std::ptr::null(); 2], wide)
    }

    /// Multiplies as [`Self::linear`] does, and adds the product of `more` before it is rounded to bfloat16.
    ///
    /// # Errors
    /// [`crate::Error::Cpp`] if rows have another width or kind, or the products have two shapes.
    pub fn linear_with(&self, x: &Tensor, (rows, matrix): (&Tensor, &Self)) -> Result<Tensor> {
        self.product(x, [ffi::raw(rows), ffi::raw(&matrix.blocks)], false)
    }

    fn product(&self, x: &Tensor, more: [ffi::Raw; 2], wide: bool) -> Result<Tensor> {
        let factors = [ffi::raw(x), ffi::raw(&self.blocks), more[0], more[1]];
        let [out] = ffi::own("packed_linear", |out| {
            // SAFETY: the tensors outlive the call, the second pair may be null, and `out` has room for one.
            unsafe { ffi::joust_packed_linear(factors.as_ptr(), self.outputs, wide, out) }
        })?;
        Ok(out)
    }
}

/// Where the keys and values of earlier tokens lie.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// `[B, capacity, kv_heads, D]`, contiguous; the new token's key is written here.
    pub keys: &'a Tensor,
    /// As `keys`.
    pub values: &'a Tensor,
    /// Tokens to skip at the start of each row, `[B]` int64; `None` for none.
    pub padding: Option<&'a Tensor>,
    /// Where the new token is written; it attends to itself and to what lies before.
    pub at: i64,
}

/// Whether [`attend_one`] takes this tensor.
pub fn can_attend(qkv: &Tensor) -> bool {
    native(qkv)
}

/// Attends from one new token a row: rotates its query and key, appends key and value to the past, and mixes values.
///
/// # Arguments
/// * `qkv` - `[B, 1, (heads + 2·kv_heads)·D]`, on the CPU.
/// * `tables` - cosines and sines of the token's position, `[1, D]` or `[B, 1, 1, D]`.
///
/// # Returns
/// `[B, 1, heads·D]`.
///
/// # Errors
/// [`crate::Error::Cpp`] if the shapes do not fit or the past is full.
pub fn attend_one(qkv: &Tensor, tables: &(Tensor, Tensor), past: Past<'_>, heads: i64) -> Result<Tensor> {
    let tables = [ffi::raw(&tables.0), ffi::raw(&tables.1)];
    let cache = [ffi::raw(past.keys), ffi::raw(past.values), past.padding.map_or(std::ptr::null(), ffi::raw)];
    let sizes = [heads, past.at];
    let [out] = ffi::own("attend_one", |out| {
        // SAFETY: all arrays and tensors outlive the call, which reads two, three and two of them.
        unsafe { ffi::joust_attend(ffi::raw(qkv), tables.as_ptr(), cache.as_ptr(), sizes.as_ptr(), out) }
    })?;
    Ok(out)
}

/// Draws one token a row by inverse CDF: the first whose cumulated weight exceeds the uniform times the total.
///
/// # Arguments
/// * `logits` - `[B, V]`, float32, on the CPU.
/// * `uniforms` - B numbers in [0, 1).
/// * `temperature` - above 0.
///
/// # Returns
/// Token ids, and their log-probs in nats at temperature 1; not finite where a logit is not.
///
/// # Errors
/// [`crate::Error::Cpp`] if the logits are not float32 `[B, V]`, [`crate::Error::Rows`] if there are not as many uniforms as rows.
pub fn draw(logits: &Tensor, uniforms: &[f64], temperature: f64) -> Result<(Vec<i64>, Vec<f32>)> {
    let rows = logits.size().first().copied().unwrap_or(0) as usize;
    if rows != uniforms.len() {
        return Err(crate::Error::Rows { rows, uniforms: uniforms.len() });
    }
    let (mut ids, mut logprobs) = (vec![0i64; rows], vec![0f32; rows]);
    // SAFETY: the tensor outlives the call; each array holds one number a row, as C++ expects.
    ffi::check("draw", unsafe {
        ffi::joust_draw(ffi::raw(logits), uniforms.as_ptr(), temperature, ids.as_mut_ptr(), logprobs.as_mut_ptr())
    })?;
    Ok((ids, logprobs))
}
