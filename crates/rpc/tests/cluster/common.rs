//! A judge and a rollout service whose behaviour the request names, and the server around them.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use joust_core::Shutdown;
use joust_proto::{
    Failure, Reason,
    common::v1::{Judgement, Prompt},
    judge::v1::{self as judge, judge_service_client::JudgeServiceClient, judge_service_server::JudgeService},
    rollout::v1::{self as rollout, rollout_service_server::RolloutService},
};
use joust_rpc::{
    Auth, Caller, ClientConfig, Peer, Result, ServerConfig, Services, Token, TraceContext,
    certs::{Files, make},
    sized::{judge_client, judge_server, rollout_server},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of one message of a stream.
pub const PIECE: usize = 64 << 10;

/// What the services count and wait for.
#[derive(Default)]
pub struct Seen {
    /// Calls of Score that arrived.
    pub calls: AtomicUsize,
    /// Calls that still fail.
    pub failures: AtomicUsize,
    /// Handlers that were dropped before their end.
    pub dropped: AtomicUsize,
    /// Messages that the stream's producer got rid of.
    pub produced: AtomicUsize,
    /// Producers that noticed that nobody reads.
    pub ended: AtomicUsize,
    /// Lets a call of the judge `gate` go on.
    pub gate: Notify,
}

struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Judge {
    name: &'static str,
    seen: Arc<Seen>,
}

impl Judge {
    fn fails(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.seen.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }
}

/// A judgement whose notes carry what a test wants to know.
fn noted(notes: Vec<String>) -> Judgement {
    Judgement { notes, ..Default::default() }
}

#[tonic::async_trait]
impl JudgeService for Judge {
    type JudgeBatchStream = ReceiverStream<Result<judge::JudgeBatchResponse, Status>>;

    async fn score(&self, request: Request<judge::ScoreRequest>) -> Result<Response<judge::ScoreResponse>, Status> {
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let peer = request.extensions().get::<Peer>().expect("set by the border").name.clone();
        let how = request.into_inner().options.unwrap_or_default().judge;
        let notes = match how.as_str() {
            "slow" => {
                let _dropped = Dropped(&self.seen.dropped);
                std::future::pending::<()>().await;
                Vec::new()
            }
            "gate" => {
                self.seen.gate.notified().await;
                Vec::new()
            }
            "away" if self.fails() => return Err(Failure::new(Reason::NotReady, "not yet").into()),
            "full" if self.fails() => {
                let failure = Failure::new(Reason::QueueFull, "full").retry_after(Duration::from_millis(20));
                return Err(failure.into());
            }
            "broken" => return Err(Failure::new(Reason::Internal, "broken").into()),
            "big" => vec!["x".repeat(8 << 20)],
            _ => vec![self.name.into(), peer, TraceContext::current().expect("set by the border").trace_id()],
        };
        Ok(Response::new(judge::ScoreResponse { judgement: Some(noted(notes)) }))
    }

    async fn judge_batch(
        &self,
        _: Request<judge::JudgeBatchRequest>,
    ) -> Result<Response<Self::JudgeBatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let seen = Arc::clone(&self.seen);
        tokio::spawn(async move {
            let mut index = 0;
            loop {
                let judgement = Some(noted(vec!["x".repeat(PIECE)]));
                if sender.send(Ok(judge::JudgeBatchResponse { index, judgement })).await.is_err() {
                    break;
                }
                index += 1;
                seen.produced.fetch_add(1, Ordering::SeqCst);
            }
            seen.ended.fetch_add(1, Ordering::SeqCst);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn compare(&self, _: Request<judge::CompareRequest>) -> Result<Response<judge::CompareResponse>, Status> {
        Err(Status::unimplemented("compare"))
    }

    async fn rank(&self, _: Request<judge::RankRequest>) -> Result<Response<judge::RankResponse>, Status> {
        Err(Status::unimplemented("rank"))
    }

    async fn critique(&self, _: Request<judge::CritiqueRequest>) -> Result<Response<judge::CritiqueResponse>, Status> {
        Err(Status::unimplemented("critique"))
    }

    async fn list_judges(
        &self,
        _: Request<judge::ListJudgesRequest>,
    ) -> Result<Response<judge::ListJudgesResponse>, Status> {
        Ok(Response::new(judge::ListJudgesResponse::default()))
    }
}

struct Rollout;

#[tonic::async_trait]
impl RolloutService for Rollout {
    type GenerateStream = ReceiverStream<Result<rollout::GenerateResponse, Status>>;

    async fn generate(&self, _: Request<rollout::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        Err(Status::unimplemented("generate"))
    }

    async fn load_models(
        &self,
        _: Request<rollout::LoadModelsRequest>,
    ) -> Result<Response<rollout::LoadModelsResponse>, Status> {
        Ok(Response::new(rollout::LoadModelsResponse::default()))
    }

    async fn get_status(
        &self,
        _: Request<rollout::GetStatusRequest>,
    ) -> Result<Response<rollout::GetStatusResponse>, Status> {
        Ok(Response::new(rollout::GetStatusResponse::default()))
    }

    async fn drain(&self, _: Request<rollout::DrainRequest>) -> Result<Response<rollout::DrainResponse>, Status> {
        Ok(Response::new(rollout::DrainResponse::default()))
    }
}

/// A folder with certificates, and the token files of tests.
pub struct Folder {
    pub files: Files,
    dir: TempDir,
}

impl Folder {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let files = make(dir.path(), &["localhost".into()]).expect("certificates");
        Self { files, dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a token file with (name, scope, token, more lines) and returns its path.
    pub fn tokens(&self, entries: &[(&str, &str, &str, &str)]) -> PathBuf {
        let entry = |(name, scope, token, more): &(&str, &str, &str, &str)| {
            let sha256 = Token::new(token).sha256();
            format!("[[token]]\nname = \"{name}\"\nscope = \"{scope}\"\nsha256 = \"{sha256}\"\n{more}\n")
        };
        let path = self.path("tokens.toml");
        // Replaced as a whole, as a reader must never see half of it.
        let staged = self.path("tokens.toml.new");
        std::fs::write(&staged, entries.iter().map(entry).collect::<String>()).expect("writable");
        std::fs::rename(&staged, &path).expect("renamed");
        path
    }

    /// Writes a client's token and returns its path.
    pub fn token(&self, token: &str) -> PathBuf {
        let path = self.path(&format!("{token}.token"));
        std::fs::write(&path, format!("{token}\n")).expect("writable");
        path
    }
}

/// Settings without TLS and tokens, whose drain ends soon.
pub fn plain() -> ServerConfig {
    let mut config = ServerConfig::new(Auth::Open, None);
    config.drain_notice = Duration::from_millis(10);
    config.drain_grace = Duration::from_millis(10);
    config
}

/// A server that runs.
pub struct Running {
    pub at: SocketAddr,
    pub seen: Arc<Seen>,
    pub shutdown: Shutdown,
    pub task: JoinHandle<Result<()>>,
}

impl Running {
    pub async fn start(config: ServerConfig) -> Self {
        Self::named("judge", config).await
    }

    pub async fn named(name: &'static str, config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (at, seen, shutdown) = (listener.local_addr().expect("bound"), Arc::<Seen>::default(), Shutdown::default());
        let judge = Judge { name, seen: Arc::clone(&seen) };
        let services = Services::default().with(judge_server(judge)).with_unready(rollout_server(Rollout));
        let task = tokio::spawn(joust_rpc::serve(listener, config, services, shutdown.clone()));
        Self { at, seen, shutdown, task }
    }

    /// Settings of a client without TLS and token.
    pub fn client(&self) -> ClientConfig {
        ClientConfig::new(format!("http://{}", self.at).parse().expect("an address"))
    }

    /// Settings of a client with TLS.
    pub fn client_tls(&self) -> ClientConfig {
        ClientConfig::new(format!("https://localhost:{}", self.at.port()).parse().expect("an address"))
    }
}

/// Opens the judge's stub.
pub fn judge_of(config: ClientConfig) -> JudgeServiceClient<Caller> {
    judge_client(Caller::new(config).expect("a caller"))
}

/// Asks the judge to behave as `how` says.
pub fn score(how: &str) -> judge::ScoreRequest {
    let options = Some(judge::JudgeOptions { judge: how.into(), ..Default::default() });
    judge::ScoreRequest { prompt: Some(Prompt::default()), options, ..Default::default() }
}

/// Returns the notes of an answer.
pub fn notes(response: Response<judge::ScoreResponse>) -> Vec<String> {
    response.into_inner().judgement.expect("a judgement").notes
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "not within {PATIENCE:?}: {what}");
}
