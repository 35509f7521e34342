//! Logs, the metrics of a run (JSONL, TensorBoard) and its archive of completions and judgements.
//!
//! It decides nothing: what it writes is for readers, and a run that never opens it trains the same weights.

mod archive;
mod error;
mod files;
mod jsonl;
mod ledger;
mod logs;
mod metrics;
mod progress;
mod screen;
mod tensorboard;
mod tfrecord;

pub use archive::Archive;
pub use error::{Error, Result};
pub use ledger::Ledger;
pub use logs::{Guard, LogFormat, init};
pub use metrics::MetricsLog;
pub use progress::{Progress, ProgressSnapshot};
