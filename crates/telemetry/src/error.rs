//! Errors of setting up logs, traces and metrics.

/// What can go wrong when telemetry is set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter of the environment does not parse.
    #[error("{variable}={value:?} is not a log filter ({reason}): use a level such as info, or target=level pairs")]
    LogFilter {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What the parser said.
        reason: String,
    },
    /// Traces, metrics and logs cannot be sent anywhere.
    #[error(
        "telemetry cannot be exported ({reason}): write an http:// or https:// URL such as http://collector:4317 as telemetry.otlp_endpoint, or remove it"
    )]
    Export {
        /// What the exporter said.
        reason: String,
    },
    /// The metrics' port cannot be had.
    #[error("cannot serve metrics on {address:?} ({source}): write a free host:port as listen.metrics, or remove it")]
    MetricsListen {
        /// The address.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Logs were set up before in this process.
    #[error("logs are already set up in this process: call init once, at its start")]
    LogsAlreadySetUp,
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
