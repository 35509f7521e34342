//! What a learner answers: its models, their weights, and steps by hand.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use joust_core::{Example, ModelRef, Progress, RunId};
use joust_proto::{
    Failure, Reason,
    learner::v1::{self as wire, learner_service_server::LearnerService},
    limits::{MAX_CHUNK_BYTES, MAX_ITEMS},
    parse::{list, name, optional, record_ids, run_id},
};
use joust_queue::{Queue, Topic};
use joust_train::list as list_checkpoints;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{Asked, Error, Header, Outlet, Part, Saved, Stepped, put_examples};

/// How often a quiet stream says that it lives.
const ALIVE: Duration = Duration::from_secs(10);
/// Pieces of weights on their way to one reader.
const PIECES: usize = 4;
/// Answers to steps by hand that are remembered for repeats.
const REMEMBERED: usize = 256;

/// The run that a learner serves now.
#[derive(Clone)]
pub struct Serving {
    /// The run.
    pub run: RunId,
    /// Its queue.
    pub queue: Arc<dyn Queue>,
    /// Its published weights.
    pub outlet: Arc<Outlet>,
    /// How far it is.
    pub progress: watch::Receiver<Option<Progress>>,
    /// Folder of its checkpoints.
    pub checkpoints: PathBuf,
    /// Ranks that train.
    pub ranks: u32,
    /// Takes what a script asks for.
    pub requests: mpsc::Sender<Asked>,
    /// Whether steps are trained when they are asked for.
    pub by_hand: bool,
}

/// The handler; the run that it serves changes.
pub struct Server {
    worker: String,
    began: Instant,
    serving: Mutex<Option<Serving>>,
    steps: tokio::sync::Mutex<Vec<(String, wire::TrainStepResponse)>>,
}

/// The gRPC face of a [`Server`].
#[derive(Clone)]
pub struct Service(pub Arc<Server>);

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    /// Serves no run yet.
    pub fn new(worker: impl Into<String>) -> Arc<Self> {
        let (serving, steps) = (Mutex::new(None), tokio::sync::Mutex::default());
        Arc::new(Self { worker: worker.into(), began: Instant::now(), serving, steps })
    }

    /// Changes the run that is served.
    pub fn serve(&self, serving: Option<Serving>) {
        *self.serving.lock() = serving;
    }

    fn serving(&self, run: &str) -> Result<Serving, Status> {
        let id = run_id("run_id", run)?;
        let found = self.serving.lock().clone().filter(|serving| serving.run == id);
        let missing = || {
            Failure::new(
                Reason::UnknownRun,
                format!("this learner does not train run {id}; ask the coordinator who does"),
            )
        };
        Ok(found.ok_or_else(missing)?)
    }
}

impl Serving {
    /// Counts the examples put by hand that wait.
    async fn waiting(&self) -> Result<u64, Status> {
        let stats = self.queue.stats(&self.run).await.map_err(|error| queue_failed(&error.into()))?;
        let topic = stats.topics.get(&Topic::pairs(&self.run).name);
        Ok(topic.map_or(0, |topic| topic.waiting + topic.leased))
    }

    /// Returns the steps that the newest checkpoint covers.
    async fn checkpointed_steps(&self) -> Result<u64, Status> {
        let folder = self.checkpoints.clone();
        let found = tokio::task::spawn_blocking(move || list_checkpoints(&folder)).await;
        let found = found.map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
        Ok(found.first().map_or(0, |checkpoint| checkpoint.step))
    }
}

fn queue_failed(error: &Error) -> Status {
    match error {
        Error::Queue(joust_queue::Error::Full { .. }) => Failure::new(Reason::QueueFull, error.to_string()).into(),
        Error::NotWaiting { .. } => Failure::new(Reason::UnknownName, error.to_string()).into(),
        Error::WithinIteration { .. } | Error::NothingWaits => {
            Failure::new(Reason::WrongState, error.to_string()).into()
        }
        Error::Queue(_) => Failure::new(Reason::StoreUnreachable, error.to_string()).into(),
        _ => Failure::new(Reason::Internal, error.to_string()).into(),
    }
}

fn gone() -> Failure {
    Failure::new(Reason::NotReady, "the learner is being restarted; ask again")
}

fn hand_only() -> Status {
    Failure::new(Reason::WrongState, "the run is fed from the queue; make it with by_hand to call for its steps").into()
}

/// Finds the weights that are asked for.
fn find(serving: &Serving, request: &wire::FetchWeightsRequest) -> Result<Header, Status> {
    let of = &serving.run;
    if request.part == i32::from(wire::ModelPart::Judge) {
        let judge = name("judge", request.judge.clone())?;
        let found = serving.outlet.offered(&judge).map_err(|error| queue_failed(&error))?;
        let missing = || Failure::new(Reason::UnknownName, format!("run {of} has no judge {judge:?} with a model"));
        return Ok(found.ok_or_else(missing)?);
    }
    let part = part(request.part)?;
    let model: Option<ModelRef> = optional("model", request.model.clone())?;
    if model.is_none() && part != Part::Initial {
        return Err(joust_proto::Error::missing("model", "the weights as a model set names them").into());
    }
    let missing = || {
        let text = format!("these weights of run {of} are not held any more, or not yet; watch the models");
        Failure::new(Reason::UnknownModel, text)
    };
    Ok(serving.outlet.find(part, model.as_ref()).ok_or_else(missing)?)
}

fn part(number: i32) -> Result<Part, joust_proto::Error> {
    match wire::ModelPart::try_from(number) {
        Ok(wire::ModelPart::Policy) => Ok(Part::Policy),
        Ok(wire::ModelPart::Ema) => Ok(Part::Average),
        Ok(wire::ModelPart::Past) => Ok(Part::Past),
        Ok(wire::ModelPart::Initial) => Ok(Part::Initial),
        // What the policy is held to is always one of the others.
        Ok(wire::ModelPart::Reference | wire::ModelPart::Judge | wire::ModelPart::Unspecified) | Err(_) => {
            Err(joust_proto::Error::value("part", number, "policy, ema, past, initial or judge"))
        }
    }
}

#[tonic::async_trait]
impl LearnerService for Service {
    type WatchModelsStream = Streamed<wire::WatchModelsResponse>;
    type FetchWeightsStream = Streamed<wire::FetchWeightsResponse>;

    async fn put_examples(&self, request: Request<wire::PutExamplesRequest>) -> Answer<wire::PutExamplesResponse> {
        let request = request.into_inner();
        let serving = self.0.serving(&request.run_id)?;
        if !serving.by_hand {
            return Err(hand_only());
        }
        let examples: Vec<Example> = list("examples", request.examples, 1..=MAX_ITEMS)?;
        let topic = Topic::pairs(&serving.run);
        let put = put_examples(&*serving.queue, &topic, examples).await;
        let (added, duplicates) = put.map_err(|error| queue_failed(&error))?;
        let waiting = serving.waiting().await?;
        Ok(Response::new(wire::PutExamplesResponse { added, duplicates, waiting }))
    }

    async fn train_step(&self, request: Request<wire::TrainStepRequest>) -> Answer<wire::TrainStepResponse> {
        let request = request.into_inner();
        let serving = self.0.serving(&request.run_id)?;
        if !serving.by_hand {
            return Err(hand_only());
        }
        let key = name("idempotency_key", request.idempotency_key)?;
        let ids = record_ids("example_ids", &request.example_ids, 0..=MAX_ITEMS)?;
        // One at a time: a repeat waits for the first, and answers as it did.
        let mut steps = self.0.steps.lock().await;
        if let Some((_, told)) = steps.iter().find(|(known, _)| *known == key) {
            return Ok(Response::new(told.clone()));
        }
        let (answer, answered) = oneshot::channel();
        serving.requests.send(Asked::Step { ids, publish: request.publish, answer }).await.map_err(|_| gone())?;
        let stepped = answered.await.map_err(|_| gone())?.map_err(|error| queue_failed(&error))?;
        let Stepped { step, metrics, examples, models } = stepped;
        let metrics = metrics.into_iter().collect();
        let told = wire::TrainStepResponse { step, metrics, examples, models: Some(models.into()) };
        steps.push((key, told.clone()));
        let excess = steps.len().saturating_sub(REMEMBERED);
        steps.drain(..excess);
        Ok(Response::new(told))
    }

    async fn watch_models(&self, request: Request<wire::WatchModelsRequest>) -> Answer<Self::WatchModelsStream> {
        let request = request.into_inner();
        let serving = self.0.serving(&request.run_id)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let (mut sets, mut behind) = (serving.outlet.watch(), request.after_version);
            // The outlet lives in what is served: without it, its end ends the stream.
            drop(serving);
            loop {
                let set = sets.borrow_and_update().clone();
                let newer = set.filter(|set| behind.is_none_or(|version| set.policy.version > version));
                if let Some(set) = newer {
                    behind = Some(set.policy.version);
                    let models = Some(set.into());
                    if sender.send(Ok(wire::WatchModelsResponse { models })).await.is_err() {
                        return;
                    }
                    continue;
                }
                let over = tokio::select! {
                    changed = sets.changed() => changed.is_err(),
                    () = tokio::time::sleep(ALIVE) => sender.send(Ok(wire::WatchModelsResponse::default())).await.is_err(),
                    () = sender.closed() => true,
                };
                if over {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch_weights(&self, request: Request<wire::FetchWeightsRequest>) -> Answer<Self::FetchWeightsStream> {
        let request = request.into_inner();
        let serving = self.0.serving(&request.run_id)?;
        let offset = request.offset_bytes;
        let header = tokio::task::spawn_blocking(move || find(&serving, &request)).await;
        let header = header.map_err(|error| Failure::new(Reason::Internal, error.to_string()))??;
        let total: u64 = header.files.iter().map(|(_, size)| size).sum();
        if offset > total {
            let text = format!("offset_bytes is {offset}, the weights have {total}");
            return Err(Failure::new(Reason::OutOfRange, text).into());
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || send_files(&header, total, offset, &sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn save_checkpoint(
        &self,
        request: Request<wire::SaveCheckpointRequest>,
    ) -> Answer<wire::SaveCheckpointResponse> {
        let serving = self.0.serving(&request.into_inner().run_id)?;
        let (answer, answered) = oneshot::channel();
        serving.requests.send(Asked::Save { answer }).await.map_err(|_| gone())?;
        let saved = answered.await.map_err(|_| gone())?.map_err(|error| queue_failed(&error))?;
        let Saved { checkpoint, steps_done } = saved;
        Ok(Response::new(wire::SaveCheckpointResponse { checkpoint, steps_done }))
    }

    async fn get_status(&self, request: Request<wire::GetStatusRequest>) -> Answer<wire::GetStatusResponse> {
        let asked = request.into_inner().run_id;
        let serving = match asked.is_empty() {
            true => self.0.serving.lock().clone(),
            false => Some(self.0.serving(&asked)?),
        };
        let uptime = prost_types::Duration { seconds: self.0.began.elapsed().as_secs() as i64, nanos: 0 };
        let mut status = wire::GetStatusResponse {
            worker: self.0.worker.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: Some(uptime),
            ..wire::GetStatusResponse::default()
        };
        if let Some(serving) = serving {
            status.run_id = serving.run.to_string();
            status.steps_done = serving.progress.borrow().map_or(0, |progress| progress.steps_done);
            status.models = serving.outlet.watch().borrow().clone().map(Into::into);
            status.ranks = serving.ranks;
            status.waiting_examples = if serving.by_hand { serving.waiting().await? } else { 0 };
            status.checkpointed_steps = serving.checkpointed_steps().await?;
        }
        Ok(Response::new(status))
    }
}

/// Sends a header and the bytes behind an offset, until nobody reads.
fn send_files(header: &Header, total: u64, offset: u64, to: &mpsc::Sender<Result<wire::FetchWeightsResponse, Status>>) {
    use wire::fetch_weights_response::Kind;
    let say = |kind| to.blocking_send(Ok(wire::FetchWeightsResponse { kind: Some(kind) })).is_ok();
    let file = |(name, size): &(String, u64)| wire::WeightsFile { name: name.clone(), size_bytes: *size };
    let files = header.files.iter().map(file).collect();
    let (blake3, model) = (header.blake3.clone(), Some(header.model.clone().into()));
    let folder = header.folder.display().to_string();
    if !say(Kind::Header(wire::WeightsHeader { total_bytes: total, blake3, files, model, folder })) {
        return;
    }
    let mut begins = 0;
    for (name, size) in &header.files {
        let ends = begins + size;
        if ends > offset {
            let from = offset.saturating_sub(begins);
            let read = (|| {
                let mut file = File::open(header.folder.join(name))?;
                file.seek(SeekFrom::Start(from))?;
                let mut at = begins + from;
                while at < ends {
                    let mut data = vec![0; ((ends - at) as usize).min(MAX_CHUNK_BYTES)];
                    file.read_exact(&mut data)?;
                    let length = data.len() as u64;
                    if !say(Kind::Chunk(wire::WeightsChunk { offset_bytes: at, data: data.into() })) {
                        return Ok(false);
                    }
                    at += length;
                }
                std::io::Result::Ok(true)
            })();
            match read {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let failure = Failure::new(Reason::UnknownModel, format!("the weights cannot be read: {error}"));
                    // Nobody reading means nobody needs it.
                    let _ = to.blocking_send(Err(failure.into()));
                    return;
                }
            }
        }
        begins = ends;
    }
}
