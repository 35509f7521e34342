//! The service: applies what happens to the cluster, makes it durable, feeds the runs and tells their events.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use joust_config::{Resolved, RunFile, resolve};
use joust_core::{Progress, Prompt, RunId, Shutdown};
use joust_proto::{Failure, Reason};
use joust_queue::Queue;
use joust_rpc::{ServerConfig, Services, sized::coordinator_server};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    Feed, FeedDeps, Result, Told, What,
    added::Added,
    cluster::{Cluster, Event, NewSettings, Run, RunState},
    events::EventLog,
    feed, prompts,
    roots::Roots,
    server::Server,
    store::Store,
    watch_depth,
};

/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Settings of a coordinator.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folders below which all paths of submitted runs must lie.
    pub roots: Vec<PathBuf>,
    /// Where submitted runs write, a folder each.
    pub runs: PathBuf,
    /// What it remembers.
    pub state: PathBuf,
    /// How it serves.
    pub server: ServerConfig,
}

/// What a coordinator works with.
pub struct Deps {
    /// The cluster's queue.
    pub queue: Arc<dyn Queue>,
    /// Where it listens.
    pub listener: TcpListener,
}

/// Serves until a stop is asked for.
///
/// # Errors
/// A folder that cannot be used, or a listener that broke.
pub async fn serve(config: Config, deps: Deps, shutdown: Shutdown) -> Result<()> {
    let core = Core::open(&config, deps.queue)?;
    let services = Services::default().with(coordinator_server(Server(core.clone())));
    let ticking = tokio::spawn({
        let (core, shutdown) = (core.clone(), shutdown.clone());
        async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tokio::select! {
                    _ = tick.tick() => drop(core.apply(Event::Tick)),
                    () = shutdown.wait() => break,
                }
            }
            // Watchers of runs would hold the server up for as long as it lets them.
            core.stop_feeding();
        }
    });
    let served = joust_rpc::serve(deps.listener, config.server, services, shutdown).await;
    ticking.abort();
    Ok(served?)
}

/// What all calls share.
pub(crate) struct Core {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) roots: Roots,
    pub(crate) runs: PathBuf,
    pub(crate) closing: Shutdown,
    state: Mutex<State>,
}

struct State {
    cluster: Cluster,
    store: Store,
    logs: BTreeMap<RunId, EventLog>,
    added: BTreeMap<RunId, Added>,
    feeders: BTreeMap<RunId, Feeder>,
    /// The last event that each start of a learner told about a run.
    heard: HashMap<(RunId, String), u64>,
    /// What was written last.
    kept: Vec<Run>,
}

/// A run whose prompts are put.
struct Feeder {
    /// Settings of the run.
    hash: String,
    progress: watch::Sender<Option<Progress>>,
    stop: Shutdown,
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Resolves the run file that a run was made from.
pub(crate) fn resolved(toml: &str) -> joust_config::Result<Resolved> {
    resolve::<RunFile>(toml, &PathBuf::from("/run.toml"), &[], &[])
}

impl Core {
    fn open(config: &Config, queue: Arc<dyn Queue>) -> Result<Arc<Self>> {
        let store = Store::open(&config.state)?;
        let kept = store.runs()?;
        let logs: BTreeMap<RunId, EventLog> =
            kept.iter().map(|run| Ok((run.id.clone(), store.events(&run.id)?))).collect::<Result<_>>()?;
        let added = kept.iter().map(|run| Ok((run.id.clone(), store.added(&run.id)?))).collect::<Result<_>>()?;
        let of = |(id, log): (&RunId, &EventLog)| {
            let id = id.clone();
            log.heard().into_iter().map(move |(start, sequence)| ((id.clone(), start), sequence))
        };
        let heard: HashMap<(RunId, String), u64> = logs.iter().flat_map(of).collect();
        let cluster = Cluster::restored(kept.clone(), now_ms());
        let feeders = BTreeMap::new();
        Ok(Arc::new(Self {
            queue,
            roots: Roots::new(&config.roots),
            runs: config.runs.clone(),
            closing: Shutdown::default(),
            state: Mutex::new(State { cluster, store, logs, added, feeders, heard, kept }),
        }))
    }

    /// Lets something happen, and does all that follows from it before it returns.
    pub(crate) fn apply(self: &Arc<Self>, event: Event) -> Result<(), Failure> {
        self.apply_to(&mut self.state.lock(), event)
    }

    fn apply_to(self: &Arc<Self>, state: &mut State, event: Event) -> Result<(), Failure> {
        let done = state.cluster.apply(now_ms(), event);
        self.follow(state)?;
        done
    }

    /// Gives a run other settings; its steps stay as many as the prompts that were added to it need.
    pub(crate) fn change(self: &Arc<Self>, id: &RunId, settings: NewSettings) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let needed = state.added.get(id).map_or(0, Added::end).div_ceil(state.cluster.run(id)?.prompts_per_step.max(1));
        if settings.steps < needed {
            let text =
                format!("learner.steps: {} are too few, prompts that were added need {needed} steps", settings.steps);
            return Err(Failure::new(Reason::InvalidField, text).of_field("overrides"));
        }
        self.apply_to(&mut state, Event::Change(id.clone(), settings))
    }

    /// Reads the cluster.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Cluster) -> T) -> T {
        read(&self.state.lock().cluster)
    }

    /// Returns the events of a run.
    pub(crate) fn events(&self, id: &RunId) -> Result<EventLog, Failure> {
        let state = self.state.lock();
        state.cluster.run(id)?;
        state.logs.get(id).cloned().ok_or_else(|| Failure::new(Reason::Internal, format!("run {id} has no events")))
    }

    /// Adds prompts to a run, and returns the position of the first.
    pub(crate) fn add_prompts(&self, id: &RunId, key: &str, prompts: Vec<Prompt>) -> Result<u64, Failure> {
        // Under the lock nothing more is released.
        let state = self.state.lock();
        let run = state.cluster.run(id)?;
        let Some(added) = state.added.get(id) else {
            return Err(Failure::new(Reason::NotReady, format!("run {id} is being made; ask again")));
        };
        added.add(key, prompts, || run.check_open().and_then(|()| run.places()))
    }

    /// Enters what a learner tells, once.
    pub(crate) fn hear(&self, id: &RunId, worker: &str, sequence: u64, what: What) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let Some(start) = state.cluster.member(worker).map(|member| member.start.clone()) else { return Ok(()) };
        let held =
            state.cluster.run(id).is_ok_and(|run| run.learner.as_ref().is_some_and(|held| held.worker == worker));
        let key = (id.clone(), start);
        if !held || sequence <= state.heard.get(&key).copied().unwrap_or_default() {
            return Ok(());
        }
        if let What::Models(set) = &what {
            // A run that has ended meanwhile keeps what it had.
            let _ = state.cluster.apply(now_ms(), Event::Published(id.clone(), set.clone()));
        }
        let told = Told { at_ms: now_ms(), what, by: Some((key.1.clone(), sequence)) };
        state.logs.get(id).map_or(Ok(()), |log| log.add(told)).map_err(broken)?;
        state.heard.insert(key, sequence);
        Ok(())
    }

    /// Makes durable, tells and feeds what the cluster has become.
    fn follow(self: &Arc<Self>, state: &mut State) -> Result<(), Failure> {
        let runs: Vec<Run> = state.cluster.runs().cloned().collect();
        for run in &runs {
            if !state.added.contains_key(&run.id) {
                let added = state.store.begin_added(run).map_err(broken)?;
                state.added.insert(run.id.clone(), added);
            }
        }
        if runs != state.kept {
            state.store.keep(&runs).map_err(broken)?;
            state.kept.clone_from(&runs);
        }
        for run in &runs {
            if !state.logs.contains_key(&run.id) {
                let log = state.store.events(&run.id).map_err(broken)?;
                state.logs.insert(run.id.clone(), log);
            }
            let log = &state.logs[&run.id];
            let now = (run.state().name().to_owned(), run.reason());
            if log.last_state().as_ref() != Some(&now) {
                let what = What::State { state: now.0, reason: now.1 };
                log.add(Told { at_ms: now_ms(), what, by: None }).map_err(broken)?;
            }
            self.feed(&mut state.feeders, (run, &state.added[&run.id]));
        }
        Ok(())
    }

    /// Lets the run's prompts flow as far as its state allows.
    fn feed(self: &Arc<Self>, feeders: &mut BTreeMap<RunId, Feeder>, (run, added): (&Run, &Added)) {
        if run.end.is_some() {
            if let Some(feeder) = feeders.remove(&run.id) {
                feeder.stop.trigger();
            }
            return;
        }
        if feeders.get(&run.id).is_some_and(|feeder| feeder.hash != run.hash)
            && let Some(feeder) = feeders.remove(&run.id)
        {
            feeder.stop.trigger();
        }
        let wanted = run.releases();
        if let Some(feeder) = feeders.get(&run.id) {
            feeder.progress.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
        } else if run.state() == RunState::Running && wanted.is_some() {
            let (progress, watching) = watch::channel(wanted);
            let stop = Shutdown::default();
            tokio::spawn(feeding(self.clone(), (run.clone(), added.clone()), watching, stop.clone()));
            tokio::spawn(watch_depth(run.id.clone(), self.queue.clone(), stop.clone()));
            feeders.insert(run.id.clone(), Feeder { hash: run.hash.clone(), progress, stop });
        }
    }

    fn stop_feeding(&self) {
        self.closing.trigger();
        self.state.lock().feeders.values().for_each(|feeder| feeder.stop.trigger());
    }
}

/// Puts a run's prompts until they are all put, it ends, or the coordinator does; what failed is tried again.
async fn feeding(
    core: Arc<Core>,
    (run, added): (Run, Added),
    progress: watch::Receiver<Option<Progress>>,
    stop: Shutdown,
) {
    const PAUSE: Duration = Duration::from_secs(1);
    while !stop.is_triggered() {
        let attempt = async {
            let toml = run.toml.clone();
            let set = tokio::task::spawn_blocking(move || {
                let run = resolved(&toml)?.run;
                let (tokenizer, context) = prompts::of_policy(&run.policy.model)?;
                let reader = prompts::Reader { tokenizer: &tokenizer, context };
                anyhow::Ok(prompts::read(&run, &reader)?.stream(&run))
            });
            let prompts = set.await??.with_added(added.clone());
            let config = Feed { run: run.id.clone(), release: run.release() };
            let deps = FeedDeps { queue: core.queue.clone(), prompts, progress: progress.clone() };
            anyhow::Ok(feed(config, deps, stop.clone()).await?)
        };
        match attempt.await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(run = %run.id, error = format!("{error:#}"), "prompts cannot be put; trying again")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.wait() => {}
        }
    }
}

pub(crate) fn broken(error: impl std::fmt::Display) -> Failure {
    tracing::error!(%error, "the coordinator cannot remember");
    Failure::new(Reason::Internal, error.to_string())
}
