//! Setting telemetry up once a process, and sending what is left when it ends.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use opentelemetry::{KeyValue, global, trace::TracerProvider};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::SdkTracerProvider,
};
use tokio::runtime::Runtime;
use tracing::Metadata;
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterFn, LevelFilter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    Error, Result,
    logs::{LogFormat, filter, lines},
    otlp::{self, Health},
    prometheus,
    screen::{Screen, active, colors},
};

/// How long the end of a process may wait for what is left to be sent.
const FLUSH: Duration = Duration::from_secs(5);
/// What is exported: of the crates below, the texts are not known to be free of what users wrote.
const OWN: &str = "joust";

static CAPTURES_CONTENT: AtomicBool = AtomicBool::new(false);
static EXPORTS_METRICS: AtomicBool = AtomicBool::new(false);

/// What a process tells about itself, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Form of the log lines on standard error.
    pub log_format: LogFormat,
    /// `service.name`, for example `joust-rollout`.
    pub service: String,
    /// `service.instance.id`: the name of the worker, where it has one.
    pub worker: Option<String>,
    /// Where traces, metrics and logs go, `http://host:4317` or `https://..`; `None` sends nothing.
    pub otlp_endpoint: Option<String>,
    /// `host:port` on which `/metrics` is served; `None` serves nothing.
    pub metrics: Option<String>,
    /// Whether texts of prompts and completions may be attributes of spans.
    pub capture_content: bool,
}

/// Sends what is left, and leaves a progress line that is still drawn as it stands, when it goes.
#[derive(Debug, Default)]
#[must_use = "the guard lives as long as the process's work"]
pub struct Guard {
    tracer: Option<SdkTracerProvider>,
    logger: Option<SdkLoggerProvider>,
    meter: Option<SdkMeterProvider>,
    metrics: Option<SocketAddr>,
    /// Where connections live: the process's own runtime may come later and end sooner.
    runtime: Option<Runtime>,
}

impl Guard {
    /// Returns where `/metrics` is served, with the port that was taken for 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Sends what waits, and returns when it is sent or lost.
    pub fn flush(&self) {
        // An error was told when the batch failed.
        thread::scope(|scope| {
            scope.spawn(|| self.tracer.as_ref().map(SdkTracerProvider::force_flush));
            scope.spawn(|| self.logger.as_ref().map(SdkLoggerProvider::force_flush));
            scope.spawn(|| self.meter.as_ref().map(SdkMeterProvider::force_flush));
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        thread::scope(|scope| {
            scope.spawn(|| self.tracer.as_ref().map(|tracer| tracer.shutdown_with_timeout(FLUSH)));
            scope.spawn(|| self.logger.as_ref().map(|logger| logger.shutdown_with_timeout(FLUSH)));
            scope.spawn(|| self.meter.as_ref().map(|meter| meter.shutdown_with_timeout(FLUSH)));
        });
        if let Some(runtime) = self.runtime.take() {
            // The process's work may end inside a runtime, where another one must not be waited for.
            runtime.shutdown_background();
        }
        // An error message that is printed next would otherwise begin in the middle of the progress line.
        if let Some(bar) = active() {
            bar.abandon();
        }
    }
}

/// Sets up the telemetry of this process: log lines to standard error, above the progress line if there is one; spans, metrics and logs to
/// the OTLP endpoint, and metrics on a port, where they are named.
///
/// `JOUST_LOG`, else `RUST_LOG`, holds the filter of the lines, such as `info` or `joust_queue=debug,warn`; without either it is `warn`.
/// What is exported are joust's own spans and events, from `info` on.
///
/// # Errors
/// [`Error::LogFilter`] for a filter that does not parse, [`Error::Export`] for an endpoint that is none, [`Error::MetricsListen`] for an
/// address that cannot be listened on, [`Error::LogsAlreadySetUp`] when called a second time. An endpoint that does not answer is no error.
pub fn init(config: Telemetry) -> Result<Guard> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let ansi = colors(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let mut layers = vec![lines(config.log_format, filter, ansi, || Screen)];
    let guard = export(&config, &mut layers)?;
    tracing_subscriber::registry().with(layers).try_init().map_err(|_| Error::LogsAlreadySetUp)?;
    if let Some(meter) = &guard.meter {
        global::set_meter_provider(meter.clone());
        EXPORTS_METRICS.store(true, Ordering::Relaxed);
    }
    CAPTURES_CONTENT.store(config.capture_content, Ordering::Relaxed);
    Ok(guard)
}

/// Returns whether metrics leave this process, for those that cost something to find out.
pub fn exports_metrics() -> bool {
    EXPORTS_METRICS.load(Ordering::Relaxed)
}

/// Returns whether texts of prompts and completions may be seen.
pub(crate) fn captures_content() -> bool {
    CAPTURES_CONTENT.load(Ordering::Relaxed)
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts what the configuration names; nothing runs where it names nothing.
fn export(config: &Telemetry, layers: &mut Vec<BoxedLayer>) -> Result<Guard> {
    if config.otlp_endpoint.is_none() && config.metrics.is_none() {
        return Ok(Guard::default());
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_name("telemetry").enable_all().build().map_err(refused)?;
    let handle = runtime.handle().clone();
    let _inside = handle.enter();
    let mut guard = Guard::default();
    guard.runtime = Some(runtime);
    let health = config.otlp_endpoint.as_deref().map(Health::new);
    if let Some(health) = &health {
        let tracer = otlp::tracer(health, resource(config)).map_err(refused)?;
        let logger = otlp::logger(health, resource(config)).map_err(refused)?;
        layers.extend(exported(&tracer, &logger));
        (guard.tracer, guard.logger) = (Some(tracer), Some(logger));
    }
    (guard.meter, guard.metrics) = metrics(config, health.as_ref())?;
    Ok(guard)
}

fn metrics(config: &Telemetry, health: Option<&Arc<Health>>) -> Result<(Option<SdkMeterProvider>, Option<SocketAddr>)> {
    let mut meter = SdkMeterProvider::builder().with_resource(resource(config));
    if let Some(health) = health {
        meter = meter.with_reader(PeriodicReader::builder(otlp::meter(health).map_err(refused)?).build());
    }
    let Some(listen) = &config.metrics else { return Ok((Some(meter.build()), None)) };
    let (reader, registry) = prometheus::reader()?;
    let address = prometheus::serve(listen, registry)?;
    Ok((Some(meter.with_reader(reader).build()), Some(address)))
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::Export { reason: error.to_string() }
}

fn resource(config: &Telemetry) -> Resource {
    let worker = config.worker.iter().map(|worker| KeyValue::new("service.instance.id", worker.clone()));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    // The builder starts from what OTEL_RESOURCE_ATTRIBUTES says.
    Resource::builder().with_service_name(config.service.clone()).with_attributes(worker.chain([version])).build()
}

/// Builds the layers that hand spans and events on.
fn exported(tracer: &SdkTracerProvider, logger: &SdkLoggerProvider) -> [BoxedLayer; 2] {
    let own = |wanted: fn(&Metadata<'_>) -> bool| {
        FilterFn::new(move |of: &Metadata<'_>| of.target().starts_with(OWN) && wanted(of))
            .with_max_level_hint(LevelFilter::INFO)
    };
    let spans = tracing_opentelemetry::layer().with_tracer(tracer.tracer("joust"));
    let spans = spans.with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
    let logs = OpenTelemetryTracingBridge::new(logger);
    [
        spans.with_filter(own(|of| of.is_span() && *of.level() <= tracing::Level::INFO)).boxed(),
        logs.with_filter(own(|of| of.is_event() && *of.level() <= tracing::Level::INFO)).boxed(),
    ]
}
