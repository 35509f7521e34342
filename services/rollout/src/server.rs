//! What a rollout worker answers: completions of the runs that it serves.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use joust_core::{ModelSet, Player, Prompt, PromptTask, Purpose, RecordId, RunId, SCHEMA, Shutdown};
use joust_data::Tokenizer;
use joust_engine::{Engine, ModelStore, Published, SamplingParams};
use joust_proto::{
    Error, Failure, Reason,
    common::v1 as common,
    limits::{MAX_ANSWERS, MAX_ITEMS, MAX_TOKENS},
    parse::{choice, counted, list, required, run_id},
    rollout::v1::{self as wire, rollout_service_server::RolloutService},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    Ask, Models, UnderWay,
    answer::{Answers, encode},
};

/// Answers on their way to one reader.
const BACKLOG: usize = 64;
/// Longest wait for a version that is asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One run that a worker samples for.
#[derive(Clone)]
pub struct Serving {
    /// Its models.
    pub models: ModelStore,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// How answers are drawn where a request does not say.
    pub params: SamplingParams,
    /// Weight of the reference in the player `mixture`.
    pub mixture_coef: f64,
    /// What comes before the prompts of the player `styled`.
    pub style: String,
    /// Memory of its models, in bytes.
    pub model_bytes: u64,
    /// Counts the answers that are being sampled.
    pub under_way: UnderWay,
}

/// The handler; the runs that it serves change.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    worker: String,
    engine: Engine,
    budget_bytes: u64,
    drain: Shutdown,
    began: Instant,
    sampled: AtomicU64,
    runs: Mutex<BTreeMap<RunId, Serving>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Server {
    /// Serves no run yet; a call of Drain triggers `drain`.
    pub fn new(worker: impl Into<String>, engine: Engine, budget_bytes: u64, drain: Shutdown) -> Self {
        let (worker, began, sampled) = (worker.into(), Instant::now(), AtomicU64::new(0));
        Self(Arc::new(Inner { worker, engine, budget_bytes, drain, began, sampled, runs: Mutex::default() }))
    }

    /// Serves a run.
    pub fn serve(&self, run: RunId, serving: Serving) {
        self.0.runs.lock().insert(run, serving);
    }

    /// Serves a run no more.
    pub fn forget(&self, run: &RunId) {
        self.0.runs.lock().remove(run);
    }

    fn serving(&self, run: &str) -> Result<Serving, Status> {
        let id = run_id("run_id", run)?;
        let missing = || {
            let text = format!("this worker does not sample for run {id}; ask the coordinator who does");
            Failure::new(Reason::UnknownRun, text)
        };
        Ok(self.0.runs.lock().get(&id).cloned().ok_or_else(missing)?)
    }

    /// Parses a request, and waits for the models that it wants.
    async fn asked(&self, request: wire::GenerateRequest) -> Result<Asked, Status> {
        let serving = self.serving(&request.run_id)?;
        let prompts: Vec<Prompt> = list("prompts", request.prompts, 1..=MAX_ITEMS)?;
        let players = players(&request.players, request.num_generations)?;
        let params = params(&serving, request.sampling)?;
        let published = version(&serving, request.policy_version).await?;
        let seed = request.seed;
        let task = |(index, prompt): (u64, Prompt)| PromptTask {
            schema: SCHEMA,
            id: RecordId::derive(&[b"by hand", &seed.to_le_bytes(), &index.to_le_bytes(), prompt.display().as_bytes()]),
            position: index,
            epoch: 0,
            row: index,
            purpose: Purpose::ByHand,
            prompt,
        };
        let tasks: Vec<PromptTask> = (0..).zip(prompts).map(task).collect();
        let prompt_ids = encode(&serving.tokenizer, &tasks, Prompt::clone);
        // What does not tokenise is the caller's.
        let prompt_ids =
            prompt_ids.map_err(|error| Error::value("prompts", error, "prompts that the model can read"))?;
        Ok(Asked { serving, tasks, prompt_ids, players, params, seed, published })
    }

    /// Samples what was asked for, and sends each answer when it is finished, until nobody reads.
    async fn sample(
        &self,
        asked: &Asked,
        to: &mpsc::Sender<Result<wire::GenerateResponse, Status>>,
    ) -> Result<(), Status> {
        let Asked { serving, tasks, prompt_ids, players, params, seed, published } = asked;
        let models = Models {
            policy: &published.policy,
            reference: &published.reference,
            ema: published.ema.as_ref(),
            past: published.past.as_ref(),
            mixture_coef: serving.mixture_coef,
        };
        let ask = Ask { params, seed: *seed, players, style: &serving.style, revision: None };
        let failed = |error: crate::Error| Failure::new(Reason::Internal, error.to_string());
        let answers = Answers::new(&self.0.engine, &serving.tokenizer, models, (tasks, prompt_ids), &ask);
        let (mut answers, mut first) = (answers.map_err(failed)?, vec![true; tasks.len()]);
        let _counted = serving.under_way.count(tasks.len() * players.len());
        while let Some(finished) = answers.next().await {
            let (prompt, completion) = finished.map_err(failed)?;
            self.0.sampled.fetch_add(completion.token_ids.len() as u64, Ordering::Relaxed);
            let is_first = std::mem::take(&mut first[prompt]);
            let prompt_ids = if is_first { prompt_ids[prompt].clone() } else { Vec::new() };
            let prompt_index = prompt as u32;
            let said = wire::GenerateResponse { prompt_index, prompt_ids, completion: Some(completion.into()) };
            if to.send(Ok(said)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// A request that can be answered.
struct Asked {
    serving: Serving,
    tasks: Vec<PromptTask>,
    prompt_ids: Vec<Vec<u32>>,
    players: Vec<Player>,
    params: SamplingParams,
    seed: u64,
    published: Published,
}

/// Returns who gives each answer.
fn players(named: &[i32], count: u32) -> Result<Vec<Player>, Error> {
    counted("num_generations", count as usize, 1..=MAX_ANSWERS)?;
    counted("players", named.len(), 0..=MAX_ANSWERS)?;
    let one = |(i, number): (usize, &i32)| match choice::<common::Player, Player>(&format!("players[{i}]"), *number)? {
        Player::Revised => Err(Error::value(format!("players[{i}]"), "revised", "a player that needs no judge")),
        player => Ok(player),
    };
    let named: Vec<Player> = named.iter().enumerate().map(one).collect::<Result<_, Error>>()?;
    let named = if named.is_empty() { vec![Player::Policy] } else { named };
    Ok(named.into_iter().cycle().take(count as usize).collect())
}

fn params(serving: &Serving, wanted: Option<wire::Sampling>) -> Result<SamplingParams, Error> {
    let own = serving.params.clone();
    let Some(wanted) = wanted else { return Ok(own) };
    let temperature = wanted.temperature.unwrap_or(1.0);
    if !(temperature.is_finite() && temperature >= 0.0) {
        return Err(Error::value("sampling.temperature", temperature, "a finite number, at least 0"));
    }
    let top_p = wanted.top_p.unwrap_or(1.0);
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(Error::value("sampling.top_p", top_p, "a number in (0, 1]"));
    }
    counted("sampling.max_new_tokens", wanted.max_new_tokens as usize, 1..=MAX_TOKENS)?;
    Ok(SamplingParams {
        temperature,
        top_p,
        top_k: i64::from(wanted.top_k),
        max_new_tokens: wanted.max_new_tokens as usize,
        ..own
    })
}

/// Waits for the version that must answer.
async fn version(serving: &Serving, wanted: Option<u64>) -> Result<Published, Status> {
    let Some(wanted) = wanted else { return Ok(serving.models.current()) };
    let mut watch = serving.models.watch();
    let found =
        tokio::time::timeout(PATIENCE, watch.wait_for(|published| published.set.policy.version >= wanted)).await;
    let published = found.ok().and_then(Result::ok).map(|published| published.clone());
    let has = serving.models.current().set.policy.version;
    let missing =
        || Failure::new(Reason::UnknownModel, format!("policy_version {wanted} is not here; the newest is {has}"));
    Ok(published.filter(|published| published.set.policy.version == wanted).ok_or_else(missing)?)
}

#[tonic::async_trait]
impl RolloutService for Server {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<wire::GenerateResponse, Status>> + Send>>;

    async fn generate(&self, request: Request<wire::GenerateRequest>) -> Answer<Self::GenerateStream> {
        let asked = self.asked(request.into_inner()).await?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let server = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                sampled = server.sample(&asked, &sender) => if let Err(status) = sampled {
                    // Nobody listening means nobody needs it.
                    let _ = sender.send(Err(status)).await;
                },
                // Who hung up wants no more.
                () = sender.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn load_models(&self, request: Request<wire::LoadModelsRequest>) -> Answer<wire::LoadModelsResponse> {
        let request = request.into_inner();
        let serving = self.serving(&request.run_id)?;
        let set: ModelSet = required("models", request.models)?;
        let mut watch = serving.models.watch();
        let found = tokio::time::timeout(PATIENCE, watch.wait_for(|published| published.set == set)).await;
        let missing = || Failure::new(Reason::UnknownModel, "the run's learner does not publish these models");
        let models = found.ok().and_then(Result::ok).map(|published| published.set.clone()).ok_or_else(missing)?;
        Ok(Response::new(wire::LoadModelsResponse { models: Some(models.into()) }))
    }

    async fn get_status(&self, _: Request<wire::GetStatusRequest>) -> Answer<wire::GetStatusResponse> {
        let inner = &self.0;
        let load = |(run, serving): (&RunId, &Serving)| wire::RunLoad {
            run_id: run.to_string(),
            models: Some(serving.models.current().set.into()),
            sequences: serving.under_way.now() as u32,
            model_bytes: serving.model_bytes,
        };
        let runs = inner.runs.lock().iter().map(load).collect();
        Ok(Response::new(wire::GetStatusResponse {
            worker: inner.worker.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: Some(prost_types::Duration { seconds: inner.began.elapsed().as_secs() as i64, nanos: 0 }),
            runs,
            budget_bytes: inner.budget_bytes,
            sampled_tokens: inner.sampled.load(Ordering::Relaxed),
            draining: inner.drain.is_triggered(),
        }))
    }

    async fn drain(&self, _: Request<wire::DrainRequest>) -> Answer<wire::DrainResponse> {
        let sequences = self.0.runs.lock().values().map(|serving| serving.under_way.now() as u32).sum();
        self.0.drain.trigger();
        Ok(Response::new(wire::DrainResponse { sequences }))
    }
}
