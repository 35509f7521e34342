//! The C++ border: fused layers, log-probs, AdamW and collectives for libtorch.
//!
//! Every function does what its plain formula in tch operations would do, and falls back to that formula where tensors are not on
//! the CPU. It holds no model; its only state is a connection between ranks. This is the only crate with unsafe code.

mod adamw;
mod decode;
mod dropout;
mod error;
mod ffi;
mod group;
mod layers;
mod logprobs;
mod masters;
mod recompute;
mod rows;
mod store;

pub use adamw::{Step, adamw, square_sum};
pub use decode::{Packed, Past, attend_one, can_attend, draw};
pub use dropout::{Mask, dropout};
pub use error::{Error, Result};
pub use group::{Aborter, Join, Pending, ProcessGroup, Reduce};
pub use layers::{RopeHeads, add_rms_norm, rms_norm, rope, swiglu};
pub use logprobs::{Limits, Spread, divergence, logprobs, logprobs_with_spread};
pub use masters::{Sink, clear_grad, compute_copy, set_grad, version};
pub use recompute::recomputed;
pub use rows::RowMap;

pub use store::Store;

use tch::{Kind, Tensor};

/// Whether the C++ loops take this tensor.
fn native(tensor: &Tensor) -> bool {
    tensor.device() == tch::Device::Cpu && matches!(tensor.kind(), Kind::Float | Kind::BFloat16 | Kind::Double)
}
