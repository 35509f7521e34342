//! What every call passes before its handler: access, rate, room, deadline and trace.

use std::{
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response, header::AUTHORIZATION};
use joust_core::Shutdown;
use joust_proto::{Failure, Reason};
use joust_telemetry::Call;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{
    Code, Status,
    body::Body,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};
use tracing::Instrument;

use crate::{
    Result, Scope,
    access::{Access, label, required, streams},
    deadline,
    guarded::Guarded,
    rate::Rates,
    repeat::Repeats,
    tokens::Tokens,
    trace::{code_name, extract},
    watched::Watched,
};

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Who has a token of this file; it is read again when it changes.
    Tokens(PathBuf),
    /// Everyone who can connect, with every scope: for tests, and for ports that nobody else reaches.
    Open,
}

/// How much is taken at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Calls that are served at the same time, streams included; more are refused.
    pub concurrency: usize,
    /// Longest time until a response begins, whatever the caller asks for.
    pub max_deadline: Duration,
    /// Calls a second of one token, and calls at once; `None` does not count.
    pub rate: Option<(f64, u32)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 1024, max_deadline: Duration::from_secs(600), rate: None }
    }
}

/// Who makes the call; handlers find it in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name of the token; empty where no token is asked for.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
}

/// How long before the caller's deadline the server answers, so that its answer is there before the caller gives up; tonic ends the
/// handler at the deadline itself with CANCELLED.
fn margin(left: Duration) -> Duration {
    (left / 10).min(Duration::from_millis(20))
}

/// How long a refused caller waits at least.
const ROOM_DELAY: Duration = Duration::from_millis(100);

struct State {
    tokens: Option<Watched<Tokens>>,
    rates: Option<Rates>,
    room: Arc<Semaphore>,
    limits: Limits,
    repeats: Repeats,
    refuse: Shutdown,
    cut: Shutdown,
}

/// Makes [`Border`]s.
#[derive(Clone)]
pub(crate) struct BorderLayer(Arc<State>);

impl BorderLayer {
    /// Sets up the border; after `refuse` new calls are refused, at `cut` streams end.
    ///
    /// # Errors
    /// What is wrong with the token file.
    pub(crate) fn new(auth: &Auth, limits: Limits, refuse: Shutdown, cut: Shutdown) -> Result<Self> {
        let tokens = match auth {
            Auth::Tokens(path) => Some(Watched::open(path.clone(), Tokens::parse)?),
            Auth::Open => None,
        };
        let rates = limits.rate.map(|(calls_per_s, burst)| Rates::new(calls_per_s, burst));
        let room = Arc::new(Semaphore::new(limits.concurrency));
        Ok(Self(Arc::new(State { tokens, rates, room, limits, repeats: Repeats::default(), refuse, cut })))
    }
}

impl<S> Layer<S> for BorderLayer {
    type Service = Border<S>;
    fn layer(&self, inner: S) -> Border<S> {
        Border { inner, state: Arc::clone(&self.0) }
    }
}

/// A service behind the border.
#[derive(Clone)]
pub(crate) struct Border<S> {
    inner: S,
    state: Arc<State>,
}

impl<S> Service<Request<Body>> for Border<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone takes the place of the one that is ready.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let state = Arc::clone(&self.state);
        let call = Call::served(label(request.uri().path()), extract(request.headers()));
        let (context, span) = (call.context(), call.span().clone());
        let work = async move {
            let started = Instant::now();
            let response = match state.admit(&mut request) {
                Ok(permit) => state.serve(&mut inner, request, permit).await?,
                Err(failure) => Status::from(failure).into_http(),
            };
            log(&call, &response, started.elapsed());
            Ok(response)
        };
        Box::pin(context.scope(work).instrument(span))
    }
}

impl State {
    /// Decides whether the call may be served, and takes its place.
    fn admit(&self, request: &mut Request<Body>) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let scope = match required(request.uri().path()) {
            Access::Open => return Ok(None),
            Access::Token(scope) => scope,
        };
        if self.refuse.is_triggered() {
            let failure = Failure::new(Reason::Draining, "the service is stopping; call another one");
            return Err(failure.retry_after(ROOM_DELAY));
        }
        let peer = self.peer(request, scope)?;
        // Workers share a token, and the more there are the more they call; what they do is bounded by their work.
        let counted = self.rates.as_ref().filter(|_| self.tokens.is_some() && peer.scope != Scope::Worker);
        if let Some(Err(delay)) = counted.map(|rates| rates.take(&peer.name, Instant::now())) {
            let message = format!("token {:?} makes more calls than it may", peer.name);
            return Err(Failure::new(Reason::RateLimited, message).retry_after(delay));
        }
        request.extensions_mut().insert(peer);
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            let message = format!("the service takes {} calls at once", self.limits.concurrency);
            Failure::new(Reason::TooManyCalls, message).retry_after(ROOM_DELAY)
        })?;
        Ok(Some(permit))
    }

    fn peer(&self, request: &Request<Body>, wanted: Scope) -> Result<Peer, Failure> {
        let Some(tokens) = &self.tokens else { return Ok(Peer { name: String::new(), scope: Scope::Admin }) };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        let authorization = request.headers().get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let entry = tokens.get().check(authorization, now_s)?;
        if !entry.scope.allows(wanted) {
            let message =
                format!("token {:?} has scope {}, expected {}", entry.name, entry.scope.name(), wanted.name());
            return Err(Failure::new(Reason::ScopeMissing, message).with("scope", wanted.name()));
        }
        let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let certified = info.and_then(TlsConnectInfo::peer_certs).is_some_and(|chain| !chain.is_empty());
        if wanted == Scope::Worker && !certified {
            let message = "this call is for workers; connect with a client certificate of the cluster";
            return Err(Failure::new(Reason::CertificateMissing, message));
        }
        Ok(Peer { name: entry.name, scope: entry.scope })
    }

    /// Runs the handler until the deadline, and guards what it streams.
    async fn serve<S>(
        &self,
        inner: &mut S,
        request: Request<Body>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        let asked = deadline::of(request.headers()).map(|left| left - margin(left));
        let limit = asked.unwrap_or(self.limits.max_deadline).min(self.limits.max_deadline);
        let until = asked.map(|left| tokio::time::Instant::now() + left);
        let long = streams(request.uri().path());
        let caller = request.extensions().get::<Peer>().map_or_else(String::new, |peer| peer.name.clone());
        let served = self.repeats.serve(inner, request, &caller);
        let Ok(response) = tokio::time::timeout(limit, served).await else {
            return Ok(expired(limit).into_http());
        };
        let response = blamed(response?);
        if !long {
            // A unary answer is whole when it begins; what it still takes is the network's.
            return Ok(response);
        }
        let cut = self.cut.clone();
        let end = Box::pin(async move {
            let late = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => expired(limit),
                () = cut.wait() => Failure::new(Reason::Draining, "the service is stopping; call another one").into(),
            }
        });
        Ok(response.map(|body| Body::new(Guarded::new(body, end, permit))))
    }
}

/// Tells the caller that its message does not decode; tonic calls that an internal error, which would be ours.
fn blamed(response: Response<Body>) -> Response<Body> {
    const UNDECODED: &str = "failed to decode Protobuf message";
    let status = Status::from_header_map(response.headers());
    match status.filter(|status| status.code() == Code::Internal && status.message().starts_with(UNDECODED)) {
        Some(status) => {
            let message =
                format!("the request does not decode: {}; use the proto files of this version", status.message());
            Status::from(Failure::new(Reason::InvalidField, message)).into_http()
        }
        None => response,
    }
}

fn expired(limit: Duration) -> Status {
    Failure::new(Reason::Deadline, format!("the call took longer than {} ms", limit.as_millis())).into()
}

/// Says how a call ended: here is where errors of the service stop travelling.
fn log(call: &Call, response: &Response<Body>, took: Duration) {
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    let took_ms = took.as_secs_f64() * 1e3;
    let failed = matches!(code, Code::Internal | Code::Unknown | Code::DataLoss);
    call.end(code_name(code), failed);
    match failed {
        true => tracing::error!(?code, took_ms, "call failed"),
        false => tracing::debug!(?code, took_ms, "call answered"),
    }
}
