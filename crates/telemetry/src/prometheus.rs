//! The port that Prometheus scrapes: `/metrics` in its text form, and `/healthz`, which says that the process lives.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use opentelemetry_prometheus::PrometheusExporter;
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{Error, Result};

/// How long a scraper may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);
/// Scrapers at once; more wait.
const SCRAPERS: usize = 16;
/// The text form, version 0.0.4.
const TEXT: &str = prometheus::TEXT_FORMAT;

/// Builds the reader that the scraped page is made from.
pub(crate) fn reader() -> Result<(PrometheusExporter, Registry)> {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false);
    let exporter = exporter.build().map_err(|error| Error::Export { reason: error.to_string() })?;
    Ok((exporter, registry))
}

/// Serves on `listen`, `host:port`, until the runtime that this is called in ends.
///
/// # Errors
/// [`Error::MetricsListen`] for an address that cannot be listened on.
pub(crate) fn serve(listen: &str, registry: Registry) -> Result<SocketAddr> {
    let refused = |source| Error::MetricsListen { address: listen.to_owned(), source };
    let listener = std::net::TcpListener::bind(listen).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let listener = TcpListener::from_std(listener).map_err(refused)?;
    tokio::spawn(accept(listener, registry));
    Ok(address)
}

async fn accept(listener: TcpListener, registry: Registry) {
    let room = Arc::new(Semaphore::new(SCRAPERS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Mostly a process without free file descriptors; at once it would be refused again.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let registry = registry.clone();
        tokio::spawn(async move {
            let answer =
                service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&request, &registry))));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            // A scraper that went away in the middle asks again.
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(page) => (StatusCode::OK, TEXT, page),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("no metrics: {error}\n")),
        },
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET, path) => {
            (StatusCode::NOT_FOUND, "text/plain", format!("nothing at {path}; ask for /metrics or /healthz\n"))
        }
        (method, _) => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", format!("{method} is not GET\n")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
