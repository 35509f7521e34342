//! Calling: TLS, token, trace, a deadline on every call, and repeats of what a repeat can mend.
//!
//! Every RPC of joust is a read, or carries what makes its repeat harmless (an idempotency key, record ids, a lease), and every request is
//! one message; so every call may be made again until its response begins.

use std::{
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION, request::Parts};
use http_body_util::{BodyExt, Full};
use joust_proto::{Failure, Reason};
use joust_telemetry::{Call, TraceContext};
use prost::bytes::Bytes;
use tokio::time::Instant;
use tonic::{Code, Status, TimeoutExpired, body::Body, transport::Channel};
use tower::{
    Service, ServiceExt,
    retry::budget::{Budget, TpsBudget},
};
use tracing::Instrument;

use crate::{
    Address, ClientTls, Error, Lookup, Result, Retry, Token,
    access::{label, streams},
    balance::{channel, system_lookup},
    deadline, retry,
    trace::{code_name, inject},
    watched::Watched,
};

/// How long the answer of the server may be behind the deadline before the caller gives up on its own.
const SLACK: Duration = Duration::from_millis(50);

/// How a service is called.
#[derive(Clone)]
pub struct ClientConfig {
    /// Where it is; a host name may stand for several servers.
    pub address: Address,
    /// How the server is known; needed for `https`.
    pub tls: Option<ClientTls>,
    /// File with the bearer token; it is read again when it changes.
    pub token_file: Option<PathBuf>,
    /// Deadline of a call that names none; of a stream, until it begins.
    pub deadline: Duration,
    /// When calls are made again.
    pub retry: Retry,
    /// How often the host name is looked up.
    pub lookup_every: Duration,
    /// How it is looked up; `None`: by the system.
    pub lookup: Option<Lookup>,
}

impl ClientConfig {
    /// Returns the usual settings for an address.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            token_file: None,
            deadline: Duration::from_secs(30),
            retry: Retry::default(),
            lookup_every: Duration::from_secs(5),
            lookup: None,
        }
    }
}

/// What stubs are built on: clones share connections, token and retry budget.
#[derive(Clone)]
pub struct Caller {
    channel: Channel,
    shared: Arc<Shared>,
}

struct Shared {
    token: Option<Watched<Token>>,
    deadline: Duration,
    retry: Retry,
    budget: TpsBudget,
}

impl Caller {
    /// Sets up calls; connections are made by the first ones. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] for files that cannot be read and TLS settings that do not fit the address.
    pub fn new(config: ClientConfig) -> Result<Self> {
        if config.address.is_tls() != config.tls.is_some() {
            return Err(Error::Address(config.address.to_string()));
        }
        let tls = config.tls.as_ref().map(|tls| tls.load(config.address.host())).transpose()?;
        let parse = |_: &std::path::Path, text: &str| Ok(Token::new(text));
        let token = config.token_file.map(|path| Watched::open(path, parse)).transpose()?;
        let lookup = config.lookup.unwrap_or_else(system_lookup);
        let channel = channel(&config.address, tls, lookup, config.lookup_every)?;
        let budget = TpsBudget::new(Duration::from_secs(10), 10, config.retry.budget);
        let shared = Shared { token, deadline: config.deadline, retry: config.retry, budget };
        Ok(Self { channel, shared: Arc::new(shared) })
    }

    /// Makes a call under a span of its own.
    async fn run(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let call = Call::made(label(request.uri().path()));
        let answered = self.repeat(request, call.context()).instrument(call.span().clone()).await;
        let code = answered.as_ref().map_or_else(Status::code, |_| Code::Ok);
        call.end(code_name(code), code != Code::Ok);
        answered
    }

    async fn repeat(self, request: Request<Body>, context: TraceContext) -> Result<Response<Body>, Status> {
        let (mut parts, body) = request.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let asked = deadline::of(&parts.headers);
        let long = streams(parts.uri.path());
        let until = Instant::now() + asked.unwrap_or(self.shared.deadline);
        inject(context, &mut parts.headers);
        self.shared.authorize(&mut parts)?;
        let mut made = 0;
        loop {
            made += 1;
            let left = until.saturating_duration_since(Instant::now());
            if long && asked.is_none() {
                deadline::clear(&mut parts.headers);
            } else {
                deadline::write(&mut parts.headers, left);
            }
            let failed = match self.attempt(&parts, bytes.clone(), left).await {
                Ok(response) => match Status::from_header_map(response.headers()) {
                    Some(status) if status.code() != Code::Ok => status,
                    _ => {
                        self.shared.budget.deposit();
                        return Ok(response);
                    }
                },
                Err(status) => status,
            };
            let failed = read_deadline(failed);
            let Some(pause) = self.shared.retry.pause(&failed, made, retry::unit()) else { return Err(failed) };
            if Instant::now() + pause >= until || !self.shared.budget.withdraw() {
                return Err(failed);
            }
            tracing::debug!(code = ?failed.code(), made, ?pause, "call is made again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, parts: &Parts, bytes: Bytes, left: Duration) -> Result<Response<Body>, Status> {
        let request = Request::from_parts(parts.clone(), Body::new(Full::new(bytes)));
        let mut channel = self.channel.clone();
        let call = async { channel.ready().await?.call(request).await };
        match tokio::time::timeout(left + SLACK, call).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(read_transport(&error)),
            Err(_) => Err(late(left)),
        }
    }
}

impl Shared {
    fn authorize(&self, parts: &mut Parts) -> Result<(), Status> {
        let Some(token) = &self.token else { return Ok(()) };
        let value = HeaderValue::try_from(format!("Bearer {}", token.get().secret()));
        let mut value = value.map_err(|_| {
            Status::from(Failure::new(Reason::TokenUnknown, "the token file holds what no header can hold"))
        })?;
        value.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

fn late(left: Duration) -> Status {
    Failure::new(Reason::Deadline, format!("no answer within {} ms", left.as_millis())).into()
}

/// Reads tonic's word for a deadline, CANCELLED "Timeout expired", as one.
fn read_deadline(status: Status) -> Status {
    if status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string() {
        return Failure::new(Reason::Deadline, "the call took longer than its deadline").into();
    }
    status
}

/// Reads an error of the connection: a deadline, or a server that is not there.
fn read_transport(error: &tonic::transport::Error) -> Status {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut causes = Vec::new();
    while let Some(cause) = source {
        if cause.is::<TimeoutExpired>() {
            return Failure::new(Reason::Deadline, "the call took longer than its deadline").into();
        }
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes.dedup();
    Failure::new(Reason::NotReady, format!("the server cannot be reached: {}", causes.join(": "))).into()
}

impl Service<Request<Body>> for Caller {
    type Response = Response<Body>;
    type Error = Status;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Each attempt waits for the channel on its own, within the deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().run(request))
    }
}
