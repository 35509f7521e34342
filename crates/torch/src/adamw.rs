//! AdamW in one pass over a weight, its gradient and its moments.

use tch::{Kind, Tensor};

use crate::{Result, ffi};

/// Constants of one step, with the meaning of PyTorch's AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Factor on the gradient.
    pub scale: f64,
    /// Learning rate times decoupled weight decay.
    pub decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Updates made, this one included.
    pub updates: u64,
}

fn plain_float(tensor: &Tensor) -> bool {
    tensor.device() == tch::Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous()
}

/// Updates `weight`, `first` and `second` in place; `copy`, if given, becomes the weight rounded to bfloat16.
///
/// Tensors that are not contiguous float32 on the CPU take the same formula in tch operations.
///
/// # Errors
/// [`crate::Error::Cpp`] if sizes differ.
pub fn adamw(
    weight: &Tensor,
    gradient: &Tensor,
    moments: [&Tensor; 2],
    copy: Option<&Tensor>,
    step: &Step,
) -> Result<()> {
    let [first, second] = moments;
    let correction1 = 1.0 - step.beta1.powf(step.updates as f64);
    let root_correction = (1.0 - step.beta2.powf(step.updates as f64)).sqrt();
    let step_size = step.learning_rate / correction1;
    if ![weight, gradient, first, second].into_iter().all(plain_float) {
        plain(weight, gradient, moments, step);
        if let Some(copy) = copy {
            copy.shallow_clone().copy_(weight);
        }
        return Ok(());
    }
    let with = ffi::AdamWStep {
        scale: step.scale as f32,
        decay: (1.0 - step.decay) as f32,
        beta1: step.beta1 as f32,
        beta2: step.beta2 as f32,
        step_size: step_size as f32,
        root_correction: root_correction as f32,
        epsilon: step.epsilon as f32,
    };
    let copy = copy.map_or(std::ptr::null(), ffi::raw);
    // SAFETY: tensors and constants outlive the call; C++ checks kinds, sizes and contiguity before it writes.
    ffi::check("adamw", unsafe {
        ffi::joust_adamw(ffi::raw(weight), ffi::raw(gradient), ffi::raw(first), ffi::raw(second), copy, &raw const with)
    })
}

fn plain(weight: &Tensor, gradient: &Tensor, [first, second]: [&Tensor; 2], step: &Step) {
    let (mut weight, mut first, mut second) = (weight.detach(), first.shallow_clone(), second.shallow_clone());
    let correction1 = 1.0 - step.beta1.powf(step.updates as f64);
    let correction2 = (1.0 - step.beta2.powf(step.updates as f64)).sqrt();
    let gradient = if step.scale == 1.0 { gradient.shallow_clone() } else { gradient * step.scale };
    // In place: what comes back is another handle on the same memory, and libtorch's errors panic.
    if step.decay > 0.0 {
        let _ = weight.g_mul_scalar_(1.0 - step.decay);
    }
    let _ = first.lerp_(&gradient, 1.0 - step.beta1);
    let _ = second.g_mul_scalar_(step.beta2);
    let _ = second.addcmul_(&gradient, &(&gradient * (1.0 - step.beta2)));
    let denominator = (second.sqrt() / correction2).g_add_scalar_(step.epsilon);
    let _ = weight.addcdiv_(&(&first * (-step.learning_rate / correction1)), &denominator);
}

/// Adds the squares of all elements; the same bits whatever the number of threads.
///
/// # Errors
/// [`crate::Error::Cpp`] if libtorch refuses.
pub fn square_sum(values: &Tensor) -> Result<f64> {
    if !plain_float(values) {
        return Ok(values.square().sum(Kind::Double).double_value(&[]));
    }
    let mut sum = 0.0;
    // SAFETY: the tensor outlives the call and `sum` has room for one number.
    ffi::check("square_sum", unsafe { ffi::joust_square_sum(ffi::raw(values), &raw mut sum) })?;
    Ok(sum)
}
