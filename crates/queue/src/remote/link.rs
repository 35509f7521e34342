//! Calls of a server that are made again while it is away.

use std::{
    error::Error as _,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::{
    Remote, Reply,
    bells::Bells,
    call::Call,
    config::RedisConfig,
    server,
    slot::{Slot, without_error},
};
use crate::{Clock, Error, Queue, Result, Settings};

/// First pause before a call is made again; each later one is twice as long, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);
/// Times that a script is loaded for one call: a server may be started anew between the two.
const LOADS: usize = 5;
/// Pause before a server that reads its files is asked again.
const LOADING: Duration = Duration::from_millis(50);
/// Most bytes of items in one call, well below what a server buffers of a client (1 GiB).
const LIMIT_BYTES: usize = 512 << 20;

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
    config.check()?;
    let link = Link::open(config)?;
    if !config.allow_unsafe {
        server::check(&link.server, &link.loaded().await?)?;
    }
    Ok(Arc::new(Remote { link: Arc::new(link), settings: Arc::new(settings), clock }))
}

/// A server, and who waits for changes there.
pub(super) struct Link {
    slot: Slot,
    server: Arc<str>,
    patience: Duration,
    pub bells: Bells,
    began: Instant,
    /// Tells this queue's operations from those of all others.
    session: String,
    operations: AtomicU64,
}

/// Returns a number that no other process guesses or draws.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Link {
    fn open(config: &RedisConfig) -> Result<Self> {
        // What cannot be used is known before the first call.
        config.client()?;
        Ok(Self {
            slot: Slot::new(config.clone()),
            patience: config.patience,
            bells: Bells::new(config.clone()),
            began: Instant::now(),
            session: format!("{:016x}{:016x}", random(), random()),
            operations: AtomicU64::new(0),
            server: config.server().into(),
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

    /// Says that the server holds or answers what the queue does not expect.
    pub(super) fn broken(&self, reason: String) -> Error {
        Error::Server { server: self.server.to_string(), reason }
    }

    /// Runs a script, again while the server is away.
    pub(super) async fn ask(&self, call: Call<'_>) -> Result<Reply> {
        let bytes = call.bytes();
        if bytes > LIMIT_BYTES {
            return Err(Error::TooLarge { bytes, limit: LIMIT_BYTES });
        }
        let (commands, began) = (|| call.commands(&self.session), Instant::now());
        let mut answers = self.patiently(&commands, began).await;
        for _ in 0..LOADS {
            // A server that was started anew knows no scripts.
            if !answers.as_ref().is_err_and(Failure::is_no_script) {
                break;
            }
            let mut load = cmd("SCRIPT");
            load.arg("LOAD").arg(call.script.text);
            let load = Pipeline::new().add_command(load).to_owned();
            // One patience for all: what was done is remembered for no longer.
            let loaded = self.patiently(&|| (load.clone(), false), began).await;
            loaded.map_err(|failure| self.explain(&failure))?;
            answers = self.patiently(&commands, began).await;
        }
        let answer = answers.map_err(|failure| self.explain(&failure))?.pop();
        Reply::new(answer.unwrap_or(Value::Nil), &self.server)
    }

    /// Runs commands, and returns the answer of each.
    pub(super) async fn run(&self, commands: &Pipeline) -> Result<Vec<Value>> {
        let answers = self.patiently(&|| (commands.clone(), false), Instant::now()).await;
        answers.map_err(|failure| self.explain(&failure))
    }

    async fn info(&self) -> Result<String> {
        let answers = self.run(&Pipeline::new().add_command(cmd("INFO")).to_owned()).await?;
        let text = answers.first().and_then(|value| redis::from_redis_value_ref(value).ok());
        text.ok_or_else(|| self.broken("its answer to INFO is no text".into()))
    }

    /// Asks what the server is, once it has read its files: until then it does not say whether it keeps one.
    async fn loaded(&self) -> Result<String> {
        let deadline = Instant::now() + self.patience;
        loop {
            let info = self.info().await?;
            if !info.contains("\nloading:1") {
                return Ok(info);
            }
            if Instant::now() >= deadline {
                return Err(
                    self.broken(format!("it has not read its files within {:?}; wait until it has", self.patience))
                );
            }
            tokio::time::sleep(LOADING).await;
        }
    }

    /// Sends commands until they are answered; `make` makes those of one try, and says whether they are a transaction.
    async fn patiently(
        &self,
        make: &(dyn Fn() -> (Pipeline, bool) + Send + Sync),
        began: Instant,
    ) -> std::result::Result<Vec<Value>, Failure> {
        let mut pause = PAUSE;
        loop {
            let (commands, is_transaction) = make();
            // Also without any patience there is time for an answer.
            let left = self.patience.saturating_sub(began.elapsed()).max(LONGEST);
            let answers = self.slot.send(&commands, left).await;
            let answers = if is_transaction { answers.and_then(of_transaction) } else { answers };
            let error = match answers {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            let waited = began.elapsed();
            if !passes(&error) || waited >= self.patience {
                return Err(Failure { error, waited });
            }
            tracing::debug!(server = %self.server, %error, "redis did not answer and is asked again");
            // Full jitter, so that many clients do not come back at once.
            let jitter = random() as f64 / u64::MAX as f64;
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    fn explain(&self, Failure { error, waited }: &Failure) -> Error {
        let (server, reason) = (self.server.to_string(), error.to_string());
        match error.code() {
            Some("OOM" | "MISCONF") => Error::ServerFull { server, reason },
            _ if passes(error) => Error::Unreachable { server, seconds: waited.as_secs_f64(), reason },
            _ => Error::Server { server, reason },
        }
    }
}

/// The last error of a call, and how long it was made again.
struct Failure {
    error: RedisError,
    waited: Duration,
}

impl Failure {
    fn is_no_script(&self) -> bool {
        self.error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
    }
}

/// Returns what a transaction's commands answered, which EXEC answers together.
fn of_transaction(mut answers: Vec<Value>) -> RedisResult<Vec<Value>> {
    match answers.pop() {
        Some(Value::Array(answers)) => without_error(answers),
        other => {
            Err(RedisError::from((ErrorKind::UnexpectedReturnType, "a transaction's answer", format!("{other:?}"))))
        }
    }
}

/// Says whether an error can pass by itself: the server is away, or starts.
fn passes(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Server(kind) => matches!(kind, BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain),
        ErrorKind::Extension => matches!(error.code(), Some("BUSY" | "NOREPLICAS")),
        // A certificate that is not trusted is no better later.
        ErrorKind::Io => io_kind(error) != Some(io::ErrorKind::InvalidData),
        // An answer that was cut off.
        ErrorKind::Parse => true,
        _ => error.is_timeout() || error.is_connection_dropped() || error.is_connection_refusal(),
    }
}

fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    let source = error.source()?.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    source.downcast_ref::<io::Error>().map(io::Error::kind)
}
