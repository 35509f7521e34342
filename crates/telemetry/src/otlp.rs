//! Traces, metrics and logs to an OTLP endpoint over gRPC, in batches, from bounded queues: what does not fit or does not arrive is lost, and
//! work never waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use opentelemetry_otlp::{ExporterBuildError, LogExporter, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{self, LogBatch, SdkLoggerProvider},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{self, SdkTracerProvider, SpanData},
};

/// How long one batch may be on its way.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Builds what sends spans; needs the context of a tokio runtime, as the other two.
pub(crate) fn tracer(health: &Arc<Health>, resource: Resource) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(&health.endpoint).with_timeout(TIMEOUT).build()?;
    let exporter = Watched { inner: exporter, signal: Signal::Traces, health: health.clone() };
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// Builds what sends log records.
pub(crate) fn logger(health: &Arc<Health>, resource: Resource) -> Result<SdkLoggerProvider, ExporterBuildError> {
    let exporter = LogExporter::builder().with_tonic().with_endpoint(&health.endpoint).with_timeout(TIMEOUT).build()?;
    let exporter = Watched { inner: exporter, signal: Signal::Logs, health: health.clone() };
    Ok(SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// Builds what sends metrics.
pub(crate) fn meter(health: &Arc<Health>) -> Result<impl PushMetricExporter + use<>, ExporterBuildError> {
    let exporter = MetricExporter::builder().with_tonic().with_endpoint(&health.endpoint).with_timeout(TIMEOUT);
    Ok(Watched { inner: exporter.build()?, signal: Signal::Metrics, health: health.clone() })
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Traces = 1,
    Metrics = 2,
    Logs = 4,
}

/// Whether the endpoint takes what is sent, so that it is said once when it does not, and once when it does again.
#[derive(Debug)]
pub(crate) struct Health {
    endpoint: String,
    /// The signals that failed last, as bits of [`Signal`].
    failing: AtomicU8,
}

impl Health {
    pub(crate) fn new(endpoint: &str) -> Arc<Self> {
        Arc::new(Self { endpoint: endpoint.to_owned(), failing: AtomicU8::new(0) })
    }

    fn note(&self, signal: Signal, result: &OTelSdkResult) {
        let bit = signal as u8;
        match result {
            Err(error) if self.failing.fetch_or(bit, Ordering::Relaxed) == 0 => {
                let endpoint = &self.endpoint;
                tracing::warn!(
                    endpoint,
                    ?signal,
                    %error,
                    "telemetry is lost: the endpoint takes nothing; check telemetry.otlp_endpoint"
                );
            }
            Ok(()) if self.failing.fetch_and(!bit, Ordering::Relaxed) == bit => {
                tracing::info!(endpoint = self.endpoint, "telemetry arrives again");
            }
            _ => {}
        }
    }
}

/// An exporter whose results are noted.
#[derive(Debug)]
struct Watched<E> {
    inner: E,
    signal: Signal,
    health: Arc<Health>,
}

impl<E> Watched<E> {
    fn noted(&self, result: OTelSdkResult) -> OTelSdkResult {
        self.health.note(self.signal, &result);
        result
    }
}

impl<E: trace::SpanExporter> trace::SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.noted(self.inner.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: logs::LogExporter> logs::LogExporter for Watched<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.noted(self.inner.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.noted(self.inner.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
