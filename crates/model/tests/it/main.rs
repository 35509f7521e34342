//! Tests of models from outside.
//!
//! One binary for all, since each links libtorch.

mod lora;
mod packing;
mod peers;
