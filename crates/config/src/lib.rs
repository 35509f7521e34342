//! Run file and deployment file: the five choices, presets, validation, overrides, JSON Schema.
//!
//! Text in, valid types out (R7): [`resolve`] lays defaults, preset, file, environment and overrides over each other,
//! holds the result against the JSON Schema of the file, completes it and refuses what cannot run. It opens no other file
//! and starts nothing.

mod deployment;
mod error;
mod explain;
pub mod judge;
mod offline;
mod reference;
mod resolve;
pub mod run;
mod schema;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
pub mod works;

pub use deployment::{
    Auth, Connect, Deployment, Device, DeviceKind, Folders, Listen, LogFormat, QueueBackend, QueueKind, Telemetry,
    Threads, Tls,
};
pub use error::{Error, Result};
pub use explain::{dump, explain};
pub use offline::{
    DataFormat, LossOn, MarginUse, NewModel, OfflineLearner, OfflineOutput, RewardBase, RewardData, RewardFile,
    RewardLoss, SftData, SftFile, SftModel, TokenizerSpec,
};
pub use reference::reference_markdown;
pub use resolve::{ConfigFile, Resolved, load, resolve, schema};
pub use run::RunFile;
pub use tree::Origin;
