//! Dropout by a keyed mask: the same key gives the same mask, on any number of threads and each time that it is asked for.

use tch::Tensor;

use crate::{Result, ffi, native};

/// What a mask is for; its draws are Philox 4x32-10 of this and the element's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// Seed of the run.
    pub seed: u64,
    /// Updates made before; its lower 32 bits count.
    pub step: u64,
    /// Micro-batch of the step.
    pub micro_batch: u32,
    /// Which layer asks.
    pub module: u32,
}

/// Zeroes elements with `probability`, in [0, 1), and scales the others by `1 / (1 - probability)`.
///
/// # Errors
/// [`crate::Error::Cpp`] if libtorch refuses.
pub fn dropout(x: &Tensor, probability: f64, mask: Mask) -> Result<Tensor> {
    if !native(x) {
        let ones = Tensor::ones(x.size(), (tch::Kind::Float, tch::Device::Cpu));
        return Ok(x * dropout(&ones, probability, mask)?.to_device(x.device()).to_kind(x.kind()));
    }
    let key = ffi::MaskKey {
        key: [mask.seed as u32, (mask.seed >> 32) as u32],
        place: [mask.step as u32, mask.micro_batch, mask.module],
        below: (probability * 2f64.powi(32)).round() as u32,
        scale: (1.0 / (1.0 - probability)) as f32,
    };
    let [out] = ffi::own("dropout", |out| {
        // SAFETY: tensor and key outlive the call and `out` has room for one.
        unsafe { ffi::joust_dropout(ffi::raw(x), &raw const key, out) }
    })?;
    Ok(out)
}
