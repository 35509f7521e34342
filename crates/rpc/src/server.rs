//! Serving: listener, TLS, health, reflection, keepalive, and a stop that drops nothing.

use std::{convert::Infallible, time::Duration};

use joust_core::Shutdown;
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    server::NamedService,
    service::{Routes, RoutesBuilder},
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower::Service;

use crate::{Auth, Limits, Result, ServerTls, border::BorderLayer, error::transport};

/// Window of one stream in bytes: how much a slow reader can have on its way.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of one connection in bytes.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Name under which health tells that the process lives; it depends on nothing else.
const LIVENESS: &str = "liveness";
/// How long streams that were ended may take to say so.
const CUT: Duration = Duration::from_secs(1);

/// How a service serves.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Certificates; `None` serves without TLS.
    pub tls: Option<ServerTls>,
    /// Who may call.
    pub auth: Auth,
    /// How much is taken at once.
    pub limits: Limits,
    /// How often an idle connection is asked whether it lives, and how long it may take to answer.
    pub keepalive: (Duration, Duration),
    /// Age at which a connection is asked to go, so that callers find new addresses.
    pub connection_age: Duration,
    /// How long NOT_SERVING is told before calls are refused; longer than a probe's period.
    pub drain_notice: Duration,
    /// How long calls that have begun may go on after that.
    pub drain_grace: Duration,
}

impl ServerConfig {
    /// Returns the usual settings for these callers and certificates.
    pub fn new(auth: Auth, tls: Option<ServerTls>) -> Self {
        Self {
            tls,
            auth,
            limits: Limits::default(),
            keepalive: (Duration::from_secs(30), Duration::from_secs(10)),
            connection_age: Duration::from_secs(300),
            drain_notice: Duration::from_secs(6),
            drain_grace: Duration::from_secs(20),
        }
    }
}

/// What is served, with its health.
pub struct Services {
    routes: RoutesBuilder,
    health: HealthReporter,
    names: Vec<(&'static str, ServingStatus)>,
}

impl Default for Services {
    fn default() -> Self {
        let (health, server) = tonic_health::server::health_reporter();
        let mut routes = Routes::builder();
        routes.add_service(server);
        Self { routes, health, names: Vec::new() }
    }
}

impl Services {
    /// Adds a service that can work at once.
    #[must_use]
    pub fn with<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.add_as(service, ServingStatus::Serving)
    }

    /// Adds a service that cannot work yet; [`Services::health`] tells when it can.
    #[must_use]
    pub fn with_unready<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.add_as(service, ServingStatus::NotServing)
    }

    /// Returns the handle that tells health, by the services' full names.
    pub fn health(&self) -> HealthReporter {
        self.health.clone()
    }

    fn add_as<S>(mut self, service: S, status: ServingStatus) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push((S::NAME, status));
        self
    }
}

/// Serves on `listener` until `shutdown`, then drains: NOT_SERVING for the notice, then new calls are refused and those that have begun
/// may go on for the grace, then streams end with UNAVAILABLE and the function returns.
///
/// # Errors
/// [`crate::Error`] for files that cannot be read, TLS that cannot be set up, or a listener that broke.
pub async fn serve(listener: TcpListener, config: ServerConfig, services: Services, shutdown: Shutdown) -> Result<()> {
    let (refuse, cut) = (Shutdown::default(), Shutdown::default());
    let layer = BorderLayer::new(&config.auth, config.limits.clone(), refuse.clone(), cut.clone())?;
    let Services { mut routes, health, names } = services;
    routes.add_service(reflection()?);
    health.set_service_status(LIVENESS, ServingStatus::Serving).await;
    for (name, status) in &names {
        health.set_service_status(*name, *status).await;
    }
    let mut server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(config.keepalive.0))
        .http2_keepalive_timeout(Some(config.keepalive.1))
        .max_connection_age(config.connection_age)
        .layer(layer);
    if let Some(tls) = &config.tls {
        server = server.tls_config(tls.load()?).map_err(transport("setting up TLS"))?;
    }
    let drained = Shutdown::default();
    let served = server.add_routes(routes.routes()).serve_with_incoming_shutdown(
        TcpIncoming::from(listener).with_nodelay(Some(true)),
        {
            let drained = drained.clone();
            async move { drained.wait().await }
        },
    );
    let drain = async {
        shutdown.wait().await;
        tracing::info!("draining");
        for name in names.iter().map(|(name, _)| *name).chain([""]) {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
        tokio::time::sleep(config.drain_notice).await;
        refuse.trigger();
        drained.trigger();
        tokio::time::sleep(config.drain_grace).await;
        cut.trigger();
        // What does not end with its stream (a reader that stands still, a handler that hangs) is left behind.
        tokio::time::sleep(CUT).await;
    };
    tokio::select! {
        ended = served => ended.map_err(transport("serving")),
        () = drain => {
            tracing::warn!("stopped with calls under way");
            Ok(())
        }
    }
}

/// Returns the reflection service over all of joust's services and health.
fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>> {
    Ok(tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(joust_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?)
}
