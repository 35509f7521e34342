//! Logs, traces and metrics of a process (OTLP, Prometheus), and the metrics (JSONL, TensorBoard) and archive of a run.
//!
//! It decides nothing: what it writes is for readers, and a run that never opens it trains the same weights.

mod archive;
mod call;
mod context;
mod error;
mod files;
pub mod instruments;
mod jsonl;
mod ledger;
mod logs;
mod metrics;
pub mod names;
mod otlp;
mod progress;
mod prometheus;
mod screen;
mod setup;
mod tensorboard;
mod tfrecord;
mod work;

pub use archive::Archive;
pub use call::Call;
pub use context::{TRACEPARENT, TraceContext};
pub use error::{Error, Result};
pub use ledger::Ledger;
pub use logs::LogFormat;
pub use metrics::MetricsLog;
pub use progress::{Progress, ProgressSnapshot};
pub use setup::{Guard, Telemetry, exports_metrics, init};
pub use work::{Work, step};
