//! The connection to a server: scripts that are asked for again while it is away, and word of changes.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    fmt, fs,
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use redis::{
    Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, Script, ServerErrorKind,
    TlsCertificates, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    sync::{Notify, futures::Notified},
    task::JoinHandle,
};

use super::{Remote, Reply};
use crate::{Clock, Error, Queue, Result, Settings, remote::server};

/// Longest patience: scripts remember what they did for twice as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// First pause before a call is made again; each later one is twice as long, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// Where a Redis is, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS.
    pub url: String,
    /// File that holds the password, for one that must not stand in the URL.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority that signed the server's certificate; the machine's own authorities without one.
    pub ca: Option<PathBuf>,
    /// Whether a server that evicts or does not persist is good enough, as in a test.
    pub allow_unsafe: bool,
    /// How long a call is made again while the server is away, before it fails; at most a minute, since what was done is remembered for two.
    pub patience: Duration,
}

impl RedisConfig {
    /// Names a server that is reached by a URL alone.
    pub fn new(url: impl Into<String>) -> Self {
        let patience = Duration::from_secs(30);
        Self { url: url.into(), password_file: None, ca: None, allow_unsafe: false, patience }
    }

    /// Returns the URL without what gets one in.
    pub fn server(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
            _ => self.url.clone(),
        }
    }
}

impl fmt::Debug for RedisConfig {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("server", &self.server()).field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// Opens a queue on a server, after a look at whether it keeps what it is given.
///
/// `clock` decides about leases in place of the server's time, for tests.
///
/// # Errors
/// [`Error::Setting`] for a setting out of range, [`Error::Unreachable`] for a server that does not answer, [`Error::Server`] for one that refuses or is
/// refused.
pub async fn open_redis(
    config: &RedisConfig,
    settings: Settings,
    clock: Option<Arc<dyn Clock>>,
) -> Result<Arc<dyn Queue>> {
    settings.check()?;
    if config.patience > PATIENCE {
        let value = format!("{} s", config.patience.as_secs_f64());
        return Err(Error::Setting { name: "patience".into(), value, want: "at most 60 s" });
    }
    let link = Link::open(config).await?;
    if !config.allow_unsafe {
        server::check(&link.server, &link.info().await?)?;
    }
    Ok(Arc::new(Remote { link: Arc::new(link), settings: Arc::new(settings), clock }))
}

/// One call of a script.
pub(super) struct Call {
    name: &'static str,
    text: &'static str,
    key: String,
    args: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new((name, text): (&'static str, &'static str), key: String) -> Self {
        Self { name, text, key, args: Vec::new() }
    }

    pub(super) fn arg(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.args.push(value.into());
        self
    }
}

/// A server, its scripts, and who waits for changes.
pub(super) struct Link {
    connection: ConnectionManager,
    server: Arc<str>,
    patience: Duration,
    scripts: Mutex<BTreeMap<&'static str, Arc<Script>>>,
    changed: Arc<Notify>,
    listener: JoinHandle<()>,
    began: Instant,
    /// Tells this process's operations from those of all others.
    session: String,
    operations: AtomicU64,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Link {
    async fn open(config: &RedisConfig) -> Result<Self> {
        let server: Arc<str> = config.server().into();
        let client = client(config)?;
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(1);
        let connection = client.get_connection_manager_lazy(manager).map_err(|error| refused(&server, &error))?;
        let changed = Arc::new(Notify::new());
        let random = || RandomState::new().build_hasher().finish();
        Ok(Self {
            connection,
            patience: config.patience,
            scripts: Mutex::default(),
            listener: tokio::spawn(listen(client, changed.clone())),
            changed,
            began: Instant::now(),
            session: format!("{:016x}{:016x}", random(), random()),
            operations: AtomicU64::new(0),
            server,
        })
    }

    /// Returns a name that no operation has.
    pub(super) fn next_operation(&self) -> String {
        format!("{}-{}", self.session, self.operations.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the time since the queue was opened.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until items or room may be there for someone.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn script(&self, name: &'static str, text: &'static str) -> Arc<Script> {
        self.scripts.lock().entry(name).or_insert_with(|| Arc::new(Script::new(text))).clone()
    }

    /// Runs a script, again while the server is away.
    pub(super) async fn ask(&self, call: Call) -> Result<Reply> {
        let (script, call) = (self.script(call.name, call.text), Arc::new(call));
        let once = || -> BoxFuture<'static, RedisResult<Value>> {
            let (script, call, mut connection) = (script.clone(), call.clone(), self.connection.clone());
            Box::pin(async move {
                let mut invocation = script.prepare_invoke();
                invocation.key(call.key.as_str());
                for value in &call.args {
                    invocation.arg(value.as_slice());
                }
                invocation.invoke_async(&mut connection).await
            })
        };
        Reply::new(self.patiently(once).await?, &self.server)
    }

    async fn info(&self) -> Result<String> {
        let once = || -> BoxFuture<'static, RedisResult<String>> {
            let mut connection = self.connection.clone();
            Box::pin(async move { redis::cmd("INFO").query_async(&mut connection).await })
        };
        self.patiently(once).await
    }

    async fn patiently<T>(&self, once: impl Fn() -> BoxFuture<'static, RedisResult<T>>) -> Result<T> {
        let (began, mut pause) = (Instant::now(), PAUSE);
        loop {
            let error = match once().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !passes(&error) {
                return Err(refused(&self.server, &error));
            }
            if began.elapsed() >= self.patience {
                let (server, reason) = (self.server.to_string(), error.to_string());
                return Err(Error::Unreachable { server, seconds: began.elapsed().as_secs_f64(), reason });
            }
            // Full jitter, so that many clients do not come back at once.
            let jitter = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

/// Says whether an error can pass by itself: the server is away, or starts.
fn passes(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    let away = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
    let starts = [BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain].map(ErrorKind::Server);
    away || error.is_connection_refusal() || starts.contains(&error.kind())
}

fn refused(server: &str, error: &RedisError) -> Error {
    Error::Server { server: server.to_owned(), reason: error.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::Server {
        server: path.display().to_string(),
        reason: format!("the file cannot be read: {error}"),
    };
    fs::read(path).map_err(failed)
}

/// Builds what connects; nothing is sent yet.
fn client(config: &RedisConfig) -> Result<Client> {
    let server = config.server();
    let bad = |error: RedisError| refused(&server, &error);
    let mut info = config.url.as_str().into_connection_info().map_err(bad)?;
    if let Some(path) = &config.password_file {
        let password = String::from_utf8_lossy(&read(path)?).trim().to_owned();
        let own = info.redis_settings().clone().set_password(password);
        info = info.set_redis_settings(own);
    }
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Client::open(info).map_err(bad);
    }
    let root_cert = config.ca.as_deref().map(read).transpose()?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }).map_err(bad)
}

/// Wakes who waits whenever any run of the server changes, for as long as the queue is open. A connection of its own, because what it waits for has no
/// deadline.
async fn listen(client: Client, changed: Arc<Notify>) {
    loop {
        if let Ok(mut messages) = client.get_async_pubsub().await
            && messages.psubscribe("{joust:*}:changed").await.is_ok()
        {
            let mut messages = messages.into_on_message();
            while messages.next().await.is_some() {
                changed.notify_waiters();
            }
        }
        tokio::time::sleep(LONGEST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let config = RedisConfig::new("rediss://joust:s3cret@redis.local:6380/2");
        assert_eq!(config.server(), "rediss://redis.local:6380/2");
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(RedisConfig::new("redis://127.0.0.1:6379").server(), "redis://127.0.0.1:6379");
    }
}
