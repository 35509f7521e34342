//! What the coordinator answers.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use joust_config::{ConfigFile, Resolved, RunFile, dump, resolve};
use joust_core::{Release, RunId};
use joust_proto::{
    Error, Failure, Reason,
    coordinator::v1::{self as wire, coordinator_service_server::CoordinatorService},
    limits::{MAX_OVERRIDES, MAX_TEXT_BYTES},
    parse::{counted, name, page_size, run_id},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    cluster::{Event, Member, NewRun, Run},
    prompts, records,
    service::Core,
    wire as say,
};

/// How often a quiet stream says that it lives.
const ALIVE: Duration = Duration::from_secs(10);
/// Events on their way to one watcher.
const BACKLOG: usize = 64;

/// The coordinator's handler.
pub(crate) struct Server(pub(crate) Arc<Core>);

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    /// Applies what a user does to a run, and says what it became.
    fn steer(&self, run: &str, event: impl FnOnce(RunId) -> Event) -> Result<wire::Run, Status> {
        let id = run_id("run_id", run)?;
        self.0.apply(event(id.clone()))?;
        Ok(self.0.read(|cluster| cluster.run(&id).map(|run| say::run(run, false)))?)
    }

    fn known(&self, run: &str) -> Result<RunId, Status> {
        let id = run_id("run_id", run)?;
        self.0.read(|cluster| cluster.run(&id).map(|_| ()))?;
        Ok(id)
    }
}

/// Takes a page out of a list; its token is the index that it begins at.
fn page<T>(list: Vec<T>, size: usize, token: &str) -> Result<(Vec<T>, String), Status> {
    let bad = || Error::value("page_token", format!("{} bytes", token.len()), "next_page_token of the page before");
    let from: usize = if token.is_empty() { 0 } else { token.parse().map_err(|_| bad())? };
    let more = list.len() > from.saturating_add(size);
    let part = list.into_iter().skip(from).take(size).collect();
    Ok((part, if more { (from + size).to_string() } else { String::new() }))
}

/// Reads a submitted run file; all that it names lies below the roots, and it writes where the deployment says.
fn submitted(core: &Core, request: &wire::CreateRunRequest) -> Result<NewRun, Failure> {
    let refused =
        |field: &str, error: &dyn std::fmt::Display| Failure::from(Error::value(field, "refused", error.to_string()));
    if request.run_toml.len() > MAX_TEXT_BYTES {
        let found = format!("{} bytes", request.run_toml.len());
        return Err(Error::value("run_toml", found, format!("at most {MAX_TEXT_BYTES}")).into());
    }
    counted("overrides", request.overrides.len(), 0..=MAX_OVERRIDES)?;
    let folder = core.roots.find("folder", Path::new(&request.folder))?;
    let mut overrides: Vec<String> =
        request.overrides.iter().map(|change| format!("{}={}", change.key, change.value)).collect();
    if !request.run_id.is_empty() {
        overrides.push(format!("name={:?}", run_id("run_id", &request.run_id)?.to_string()));
    }
    let read = |overrides: &[String]| resolve::<RunFile>(&request.run_toml, &folder.join("run.toml"), overrides, &[]);
    let first = read(&overrides).map_err(|error| refused("run_toml", &error))?;
    overrides.push(format!("output.dir={:?}", core.runs.join(first.run.name.as_str()).display().to_string()));
    let mut resolved: Resolved = read(&overrides).map_err(|error| refused("run_toml", &error))?;
    for input in resolved.run.inputs() {
        *input = core.roots.find("run_toml", input)?;
    }
    let run = &resolved.run;
    let opened = prompts::of_policy(&run.policy.model).and_then(|(tokenizer, context)| {
        let set = prompts::read(run, &prompts::Reader { tokenizer: &tokenizer, context })?;
        prompts::steps(run, set.len() as u64)
    });
    let steps = opened.map_err(|error| refused("run_toml", &format!("{error:#}")))?;
    Ok(NewRun {
        id: run.name.clone(),
        toml: dump(&resolved).map_err(|error| refused("run_toml", &error))?,
        hash: resolved.hash.clone(),
        release: Release {
            prompts_per_step: u64::from(run.learner.prompts_per_step),
            steps,
            max_staleness: u64::from(run.pipeline.max_staleness),
            iteration_steps: run.learner.iteration_steps,
        },
        model_bytes: model_bytes(&run.policy.model),
        by_hand: request.by_hand,
        key: name("idempotency_key", request.idempotency_key.clone())?,
        forked_from: None,
    })
}

/// Returns the bytes of a folder's weights.
fn model_bytes(folder: &Path) -> u64 {
    let files = folder.read_dir().into_iter().flatten().flatten();
    let weights = files.filter(|file| file.path().extension().is_some_and(|end| end == "safetensors"));
    weights.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}

fn unsupported(what: &str) -> Status {
    Status::unimplemented(format!("this version of joust does not {what}"))
}

#[tonic::async_trait]
impl CoordinatorService for Server {
    type WatchRunStream = Streamed<wire::WatchRunResponse>;
    type ExportExamplesStream = Streamed<wire::ExportExamplesResponse>;

    async fn create_run(&self, request: Request<wire::CreateRunRequest>) -> Answer<wire::CreateRunResponse> {
        let (core, request) = (self.0.clone(), request.into_inner());
        let new = tokio::task::spawn_blocking(move || submitted(&core, &request)).await;
        let new = new.map_err(|error| Failure::new(Reason::Internal, error.to_string()))??;
        let id = new.id.clone();
        self.0.apply(Event::Create(Box::new(new)))?;
        let run = self.0.read(|cluster| cluster.run(&id).map(|run| say::run(run, true)))?;
        Ok(Response::new(wire::CreateRunResponse { run: Some(run) }))
    }

    async fn get_run(&self, request: Request<wire::GetRunRequest>) -> Answer<wire::GetRunResponse> {
        let id = run_id("run_id", &request.into_inner().run_id)?;
        let run = self.0.read(|cluster| cluster.run(&id).map(|run| say::run(run, true)))?;
        Ok(Response::new(wire::GetRunResponse { run: Some(run) }))
    }

    async fn list_runs(&self, request: Request<wire::ListRunsRequest>) -> Answer<wire::ListRunsResponse> {
        let request = request.into_inner();
        counted("states", request.states.len(), 0..=16)?;
        let wanted =
            |run: &&Run| request.states.is_empty() || request.states.contains(&i32::from(say::state(run.state())));
        let mut runs: Vec<Run> = self.0.read(|cluster| cluster.runs().filter(wanted).cloned().collect());
        runs.sort_by_key(|run| (std::cmp::Reverse(run.created_ms), run.id.clone()));
        let (runs, next_page_token) = page(runs, page_size("page_size", request.page_size)?, &request.page_token)?;
        let runs = runs.iter().map(|run| say::run(run, false)).collect();
        Ok(Response::new(wire::ListRunsResponse { runs, next_page_token }))
    }

    async fn watch_run(&self, request: Request<wire::WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        let request = request.into_inner();
        let id = run_id("run_id", &request.run_id)?;
        let log = self.0.events(&id)?;
        let position = request.after_position as usize;
        if position > log.after(0).len() {
            let text = format!("after_position is {position}, the run has {} events", log.after(0).len());
            return Err(Failure::new(Reason::OutOfRange, text).into());
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(BACKLOG);
        tokio::spawn(watching(self.0.clone(), id, position, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn pause_run(&self, request: Request<wire::PauseRunRequest>) -> Answer<wire::PauseRunResponse> {
        let run = self.steer(&request.into_inner().run_id, Event::Pause)?;
        Ok(Response::new(wire::PauseRunResponse { run: Some(run) }))
    }

    async fn resume_run(&self, request: Request<wire::ResumeRunRequest>) -> Answer<wire::ResumeRunResponse> {
        let run = self.steer(&request.into_inner().run_id, Event::Resume)?;
        Ok(Response::new(wire::ResumeRunResponse { run: Some(run) }))
    }

    async fn stop_run(&self, request: Request<wire::StopRunRequest>) -> Answer<wire::StopRunResponse> {
        let run = self.steer(&request.into_inner().run_id, Event::Stop)?;
        Ok(Response::new(wire::StopRunResponse { run: Some(run) }))
    }

    async fn fork_run(&self, _: Request<wire::ForkRunRequest>) -> Answer<wire::ForkRunResponse> {
        Err(unsupported("fork runs"))
    }

    async fn update_run(&self, _: Request<wire::UpdateRunRequest>) -> Answer<wire::UpdateRunResponse> {
        Err(unsupported("change the settings of a run"))
    }

    async fn submit_prompts(&self, _: Request<wire::SubmitPromptsRequest>) -> Answer<wire::SubmitPromptsResponse> {
        Err(unsupported("add prompts to a run"))
    }

    async fn submit_feedback(&self, _: Request<wire::SubmitFeedbackRequest>) -> Answer<wire::SubmitFeedbackResponse> {
        Err(unsupported("add preferences of people to a run"))
    }

    async fn list_examples(&self, request: Request<wire::ListExamplesRequest>) -> Answer<wire::ListExamplesResponse> {
        let request = request.into_inner();
        let (id, size) = (self.known(&request.run_id)?, page_size("page_size", request.page_size)?);
        let filter = request.filter.unwrap_or_default().try_into()?;
        let found = records::examples(&*self.0.queue, &id, &filter).await?;
        let (examples, next_page_token) = page(found, size, &request.page_token)?;
        Ok(Response::new(wire::ListExamplesResponse { examples, next_page_token }))
    }

    async fn export_examples(
        &self,
        request: Request<wire::ExportExamplesRequest>,
    ) -> Answer<Self::ExportExamplesStream> {
        let request = request.into_inner();
        let id = self.known(&request.run_id)?;
        let filter = request.filter.unwrap_or_default().try_into()?;
        let found = records::examples(&*self.0.queue, &id, &filter).await?;
        let numbered = (1..).zip(found).skip(request.after_position as usize);
        let said =
            numbered.map(|(position, example)| Ok(wire::ExportExamplesResponse { position, example: Some(example) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(said.collect::<Vec<_>>()))))
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Answer<wire::ListDeadLettersResponse> {
        let request = request.into_inner();
        let (id, size) = (self.known(&request.run_id)?, page_size("page_size", request.page_size)?);
        let found = records::dead(&*self.0.queue, records::topics(&id, &request.topic)?).await?;
        let (dead_letters, next_page_token) = page(found, size, &request.page_token)?;
        Ok(Response::new(wire::ListDeadLettersResponse { dead_letters, next_page_token }))
    }

    async fn requeue_dead_letters(
        &self,
        request: Request<wire::RequeueDeadLettersRequest>,
    ) -> Answer<wire::RequeueDeadLettersResponse> {
        let request = request.into_inner();
        let id = self.known(&request.run_id)?;
        let topic = name("topic", request.topic)?;
        let topics = records::topics(&id, &topic)?;
        let requeued = records::requeue(&*self.0.queue, &topics[0], &request.ids).await?;
        Ok(Response::new(wire::RequeueDeadLettersResponse { requeued }))
    }

    async fn get_queue_stats(
        &self,
        request: Request<wire::GetQueueStatsRequest>,
    ) -> Answer<wire::GetQueueStatsResponse> {
        let id = self.known(&request.into_inner().run_id)?;
        Ok(Response::new(wire::GetQueueStatsResponse { topics: records::stats(&*self.0.queue, &id).await? }))
    }

    async fn register_worker(
        &self,
        request: Request<wire::RegisterWorkerRequest>,
    ) -> Answer<wire::RegisterWorkerResponse> {
        let request = request.into_inner();
        let own = env!("CARGO_PKG_VERSION");
        if request.version != own {
            let text =
                format!("the worker is of version {}, the coordinator of {own}; run one version", request.version);
            return Err(Failure::new(Reason::VersionDiffers, text).into());
        }
        let registration = say::registration(request)?;
        let worker = registration.worker.clone();
        self.0.apply(Event::Register(registration))?;
        let (lease_duration, heartbeat_interval) = say::lease_times();
        let (lease, assignments) = self
            .0
            .read(|cluster| (cluster.member(&worker).map_or(0, |member| member.lease), cluster.assignments(&worker)));
        Ok(Response::new(wire::RegisterWorkerResponse {
            lease,
            lease_duration: Some(lease_duration),
            heartbeat_interval: Some(heartbeat_interval),
            assignments: assignments.into_iter().map(say::assignment).collect(),
        }))
    }

    async fn heartbeat(&self, request: Request<wire::HeartbeatRequest>) -> Answer<wire::HeartbeatResponse> {
        let wire::HeartbeatRequest { worker, lease, progress, draining, events } = request.into_inner();
        counted("events", events.len(), 0..=4096)?;
        let progress = say::progress(progress)?;
        let events = events.into_iter().map(say::told).collect::<Result<Vec<_>, Error>>()?;
        let worker = name("worker", worker)?;
        let holds = self.0.read(|cluster| cluster.member(&worker).is_some_and(|member| member.lease == lease));
        if holds {
            // Before the progress, so that the last step of a run is told before its end.
            for (run, sequence, what) in events.into_iter().flatten() {
                self.0.hear(&run, &worker, sequence, what)?;
            }
        }
        self.0.apply(Event::Heartbeat { worker: worker.clone(), lease, progress, draining })?;
        let assignments = self.0.read(|cluster| cluster.assignments(&worker));
        let (lease_duration, _) = say::lease_times();
        let assignments = assignments.into_iter().map(say::assignment).collect();
        Ok(Response::new(wire::HeartbeatResponse { lease_duration: Some(lease_duration), assignments }))
    }

    async fn list_workers(&self, request: Request<wire::ListWorkersRequest>) -> Answer<wire::ListWorkersResponse> {
        let request = request.into_inner();
        let role = if request.role == 0 { None } else { Some(say::role(request.role)?) };
        let workers = self.0.read(|cluster| {
            let of_role = cluster.members().filter(|member| role.is_none_or(|role| role == member.role));
            let with_runs = of_role.map(|member| {
                let runs = cluster.assignments(&member.worker);
                (member, runs.into_iter().map(|assignment| assignment.run.to_string()).collect::<Vec<_>>())
            });
            let ready = |member: &Member| {
                let told = member.progress.iter().find(|(run, _)| run.as_str() == request.run_id);
                told.is_some_and(|(_, progress)| progress.recovered)
            };
            let serving = with_runs.filter(|(member, runs)| {
                request.run_id.is_empty() || (runs.contains(&request.run_id) && ready(member))
            });
            serving.map(|(member, runs)| say::member(member, runs)).collect()
        });
        Ok(Response::new(wire::ListWorkersResponse { workers }))
    }
}

/// Sends the events of a run until it has ended and all are sent, or nobody reads.
async fn watching(
    core: Arc<Core>,
    id: RunId,
    mut position: usize,
    to: tokio::sync::mpsc::Sender<Result<wire::WatchRunResponse, Status>>,
) {
    let Ok(log) = core.events(&id) else { return };
    let mut count = log.watch();
    loop {
        count.borrow_and_update();
        let ended = core.read(|cluster| cluster.run(&id).map_or(true, |run| run.end.is_some()));
        for told in log.after(position) {
            position += 1;
            if to.send(Ok(say::event(position as u64, told))).await.is_err() {
                return;
            }
        }
        if ended && log.after(position).is_empty() {
            return;
        }
        let over = tokio::select! {
            changed = count.changed() => changed.is_err(),
            () = tokio::time::sleep(ALIVE) => to.send(Ok(wire::WatchRunResponse::default())).await.is_err(),
            () = to.closed() => true,
            () = core.closing.wait() => true,
        };
        if over {
            return;
        }
    }
}
