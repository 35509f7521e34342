//! Logs, traces and metrics of a process, over OTLP and for Prometheus.
//!
//! It decides nothing, and keeps nothing of a run: what a run writes is joust-runlog.

mod call;
mod context;
mod error;
pub mod instruments;
mod logs;
pub mod names;
mod otlp;
mod prometheus;
pub mod screen;
mod setup;
mod work;

pub use call::Call;
pub use context::{TRACEPARENT, TraceContext};
pub use error::{Error, Result};
pub use logs::LogFormat;
pub use setup::{Guard, Telemetry, exports_metrics, init};
pub use work::{Work, step};
