//! Tests of the trainer from outside.
//!
//! One binary for all, since each links libtorch.

mod adapter;
mod coupled;
mod degrees;
mod gradient;
mod masks;
mod measured;
mod parallel;
mod steps;
