//! What a run writes for its readers: metrics (JSONL, TensorBoard), ledger, archive (Parquet) and progress.
//!
//! It decides nothing: a run that never opens it trains the same weights.

mod archive;
mod error;
mod files;
mod jsonl;
mod ledger;
mod metrics;
mod progress;
mod tensorboard;
mod tfrecord;

pub use archive::Archive;
pub use error::{Error, Result};
pub use ledger::Ledger;
pub use metrics::MetricsLog;
pub use progress::{Progress, ProgressSnapshot};
