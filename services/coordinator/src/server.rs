//! What the coordinator answers.

use std::{pin::Pin, sync::Arc, time::Duration};

use joust_core::RunId;
use joust_proto::{
    Error, Failure, Reason,
    coordinator::v1::{self as wire, coordinator_service_server::CoordinatorService},
    parse::{counted, name, page_size, run_id},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    cluster::{Event, Member, NewRun, Run},
    feedback, fork, prompts, records,
    service::Core,
    submit, wire as say,
};

/// How often a quiet stream says that it lives.
const ALIVE: Duration = Duration::from_secs(10);
/// Pause between two looks at a run that changes.
const SOON: Duration = Duration::from_millis(20);
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

    fn run(&self, run: &str) -> Result<Run, Status> {
        let id = run_id("run_id", run)?;
        Ok(self.0.read(|cluster| cluster.run(&id).cloned())?)
    }

    /// Makes a run, or finds the one that the same call made before.
    fn make(&self, new: NewRun) -> Result<wire::Run, Status> {
        let id = new.id.clone();
        self.0.apply(Event::Create(Box::new(new)))?;
        Ok(self.0.read(|cluster| cluster.run(&id).map(|run| say::run(run, true)))?)
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

#[tonic::async_trait]
impl CoordinatorService for Server {
    type WatchRunStream = Streamed<wire::WatchRunResponse>;
    type ExportExamplesStream = Streamed<wire::ExportExamplesResponse>;

    async fn create_run(&self, request: Request<wire::CreateRunRequest>) -> Answer<wire::CreateRunResponse> {
        let (core, request) = (self.0.clone(), request.into_inner());
        let new = tokio::task::spawn_blocking(move || submit::submitted(&core, &request)).await;
        let run = self.make(new.map_err(|error| Failure::new(Reason::Internal, error.to_string()))??)?;
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
        let count = *log.watch().borrow();
        if position > count {
            let text = format!("after_position is {position}, the run has {count} events");
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

    async fn fork_run(&self, request: Request<wire::ForkRunRequest>) -> Answer<wire::ForkRunResponse> {
        let (core, request) = (self.0.clone(), request.into_inner());
        let source = self.run(&request.run_id)?;
        let new = tokio::task::spawn_blocking(move || fork::forked(&core, &source, &request)).await;
        let run = self.make(new.map_err(|error| Failure::new(Reason::Internal, error.to_string()))??)?;
        Ok(Response::new(wire::ForkRunResponse { run: Some(run) }))
    }

    async fn update_run(&self, request: Request<wire::UpdateRunRequest>) -> Answer<wire::UpdateRunResponse> {
        let (core, request) = (self.0.clone(), request.into_inner());
        let before = self.run(&request.run_id)?;
        let id = before.id.clone();
        let settings = tokio::task::spawn_blocking(move || submit::changed(&core, &before, &request.overrides)).await;
        let settings = settings.map_err(|error| Failure::new(Reason::Internal, error.to_string()))??;
        self.0.change(&id, settings)?;
        // The learner says from which step on they hold; where there is none, the next one begins with them.
        loop {
            let run = self.0.read(|cluster| cluster.run(&id).cloned())?;
            let since = run.settings_since.or((run.learner.is_none()).then_some(run.steps_done));
            if let Some(effective_step) = since {
                let run = Some(say::run(&run, true));
                return Ok(Response::new(wire::UpdateRunResponse { effective_step, run }));
            }
            if run.end.is_some() {
                let text = format!("run {id} ended before a step had the new settings: {}", run.reason());
                return Err(Failure::new(Reason::WrongState, text).into());
            }
            tokio::select! {
                () = tokio::time::sleep(SOON) => {}
                () = self.0.closing.wait() => {
                    let text = "the coordinator stops; the new settings are kept, and hold when the run goes on";
                    return Err(Failure::new(Reason::Draining, text).into());
                }
            }
        }
    }

    async fn submit_prompts(
        &self,
        request: Request<wire::SubmitPromptsRequest>,
    ) -> Answer<wire::SubmitPromptsResponse> {
        let request = request.into_inner();
        let run = self.run(&request.run_id)?;
        let (id, key) = (run.id.clone(), name("idempotency_key", request.idempotency_key.clone())?);
        let read = tokio::task::spawn_blocking(move || submit::prompts(&run, request)).await;
        let prompts = read.map_err(|error| Failure::new(Reason::Internal, error.to_string()))??;
        let count = prompts.len() as u64;
        let first = self.0.add_prompts(&id, &key, prompts)?;
        let task_ids = (first..first + count).map(|position| prompts::id_at(&id, position).as_bytes().to_vec());
        Ok(Response::new(wire::SubmitPromptsResponse { task_ids: task_ids.collect() }))
    }

    async fn submit_feedback(
        &self,
        request: Request<wire::SubmitFeedbackRequest>,
    ) -> Answer<wire::SubmitFeedbackResponse> {
        let request = request.into_inner();
        let run = self.run(&request.run_id)?;
        run.check_open()?;
        let (id, by_hand) = (run.id.clone(), run.by_hand);
        let taken = tokio::task::spawn_blocking(move || feedback::taken(&run, request)).await;
        let taken = taken.map_err(|error| Failure::new(Reason::Internal, error.to_string()))??;
        Ok(Response::new(taken.put(&*self.0.queue, &id, by_hand).await?))
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
