//! Trainer: prepare, log-probs, optimizer, schedules, checkpoints.
//!
//! It turns lists of examples into updates of weights. What is trained when is the learner's business, not decided here.

mod average;
mod background;
mod buckets;
mod checkpoint;
mod coupling;
mod degrees;
mod diagnose;
mod error;
mod foresight;
mod gradient;
mod heads;
mod list;
mod masks;
mod master;
mod optimizer;
mod pair;
mod pal;
mod past;
mod ranks;
mod reason;
mod reducer;
mod reward;
mod schedule;
mod sft;
mod single;
mod sums;
mod throughput;
mod trainer;

pub use average::Average;
pub use checkpoint::{Checkpoint, Restored, Shard, Written, latest, list, prune};
pub use error::{Error, Result};
pub use heads::heads;
pub use masks::Traces;
pub use master::{Master, Settings, Update};
pub use optimizer::{AdafactorParams, AdamWParams, Optimizer, OptimizerParams, RmsPropParams};
pub use pal::{UserPair, beside, pal_step};
pub use past::Past;
pub use ranks::Ranks;
pub use reason::{Encode, Reasons};
pub use reward::{RatedSequence, RewardLoss, RewardPair, rating_step, reward_step};
pub use schedule::{Schedule, ScheduleKind};
pub use sft::{SftSequence, masked_nll, masked_sft_step, perplexity_parts, sft_step};
pub use trainer::{Foreign, Known, Objective, Prepared, StepMetrics, Trainer};
