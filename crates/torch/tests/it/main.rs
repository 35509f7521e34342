//! Tests of the C++ border from outside.
//!
//! One binary for all, since each links libtorch.

mod border;
mod decode;
mod dropout;
mod group;
