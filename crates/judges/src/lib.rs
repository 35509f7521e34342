//! Judges: one trait, the rule, oracle, matrix and reward-model backends, one that learns, and asking again.
//!
//! A judgement has a status, and there is no number that stands in for a failed one (R3). Which answers meet and what
//! becomes of a probability is decided elsewhere (`joust-pairs`); models are run elsewhere and reach this crate as
//! [`Scorer`]s and [`Pupil`]s, so that it builds without libtorch.

mod best;
mod build;
mod error;
mod judge;
mod learned;
mod matrix;
mod oracle;
mod players;
mod retry;
mod reward_model;
mod rule;
mod swap;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

pub use best::strongest;
pub use build::{Opened, build, config_hash};
pub use error::{Error, Result};
pub use judge::{Ask, CallContext, Candidate, Judge, JudgeItem};
pub use learned::{Learned, Lesson, Lessons, Pupil};
pub use matrix::Matrix;
pub use oracle::Oracle;
pub use players::Players;
pub use retry::Retry;
pub use reward_model::{RewardModel, Scorer};
pub use rule::Rule;
pub use swap::{Pooled, pool_orders};
