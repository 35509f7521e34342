//! A collector in this process: it keeps what arrives over OTLP.

#![allow(dead_code, reason = "each test needs some of it")]

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// How long anything may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// What arrived.
#[derive(Default)]
pub struct Arrived {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    pub metrics: Vec<Metric>,
    pub resources: Vec<Vec<KeyValue>>,
}

/// The collector.
#[derive(Clone, Default)]
pub struct Sink(Arc<(Mutex<Arrived>, Condvar)>);

impl Sink {
    /// Listens on a free port of this machine, and returns its URL.
    pub async fn start() -> (Self, String) {
        let sink = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Server::builder()
            .add_service(TraceServiceServer::new(sink.clone()))
            .add_service(LogsServiceServer::new(sink.clone()))
            .add_service(MetricsServiceServer::new(sink.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (sink, url)
    }

    fn add(&self, change: impl FnOnce(&mut Arrived)) {
        change(&mut self.0.0.lock().expect("no panic"));
        self.0.1.notify_all();
    }

    /// Looks for something in what arrived.
    pub fn find<T>(&self, find: impl Fn(&Arrived) -> Option<T>) -> Option<T> {
        find(&self.0.0.lock().expect("no panic"))
    }

    /// Waits until what arrived holds what `find` looks for.
    pub fn wait_for<T>(&self, what: &str, find: impl Fn(&Arrived) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut arrived = self.0.0.lock().expect("no panic");
        loop {
            if let Some(found) = find(&arrived) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not arrive; spans: {:?}", arrived.spans);
            arrived = self.0.1.wait_timeout(arrived, left).expect("no panic").0;
        }
    }

    /// Waits for the span of this name.
    pub fn span(&self, name: &str) -> Span {
        self.wait_for(name, |arrived| arrived.spans.iter().find(|span| span.name == name).cloned())
    }
}

/// Reads an attribute as text.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    })
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for group in request.into_inner().resource_spans {
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.add(|arrived| {
                arrived.spans.extend(spans);
                arrived.resources.extend(group.resource.map(|resource| resource.attributes));
            });
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Sink {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let groups = request.into_inner().resource_logs.into_iter().flat_map(|group| group.scope_logs);
        self.add(|arrived| arrived.logs.extend(groups.flat_map(|scope| scope.log_records)));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let groups = request.into_inner().resource_metrics.into_iter().flat_map(|group| group.scope_metrics);
        self.add(|arrived| arrived.metrics.extend(groups.flat_map(|scope| scope.metrics)));
        Ok(Response::new(Default::default()))
    }
}
