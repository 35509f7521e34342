//! Selection, pairing, filters and replay order as pure functions.
//!
//! It turns judged answers into training examples and chooses which applied ones are trained again. It neither asks a
//! judge nor touches tensors or clocks: the same arguments give the same examples, ids included (R1).

pub mod annotate;
mod beliefs;
mod error;
mod keep;
mod outcome;
pub mod replay;
mod rules;
mod select;
mod targets;
#[cfg(test)]
mod tests;
mod weights;

pub use error::{Error, Result};
pub use keep::{Keep, KeepBy, ches};
pub use outcome::outcome_of;
pub use rules::{Filter, Label, PairingRules, Select};
pub use weights::{Weight, weight_of};
