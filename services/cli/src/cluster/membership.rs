//! Being a member of a cluster: a lease, signs of life, and what is told with them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use joust_core::{RunId, Shutdown};
use joust_proto::{
    Reason,
    coordinator::v1::{self as wire, learner_event::Event},
};
use joust_rpc::{Caller, sized::coordinator_client};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Role;

/// Pause between two tries to register.
const PAUSE: Duration = Duration::from_millis(500);
/// Pause between two signs of life where the coordinator does not say.
const BEAT: Duration = Duration::from_secs(1);
/// Events of one message at most.
const EVENTS: usize = 1024;

/// Who registers, and where.
pub(super) struct Membership {
    pub(super) coordinator: Caller,
    pub(super) worker: String,
    pub(super) role: Role,
    pub(super) address: String,
    pub(super) budget_bytes: u64,
}

/// Takes what a worker tells the coordinator; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Reporter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    report: Mutex<Report>,
    news: Notify,
}

#[derive(Default)]
struct Report {
    progress: BTreeMap<RunId, wire::WorkerProgress>,
    events: VecDeque<wire::LearnerEvent>,
    sequence: u64,
}

impl Reporter {
    /// Tells how far a run is, at once.
    pub(crate) fn progress(&self, run: &RunId, change: impl FnOnce(&mut wire::WorkerProgress)) {
        let mut report = self.0.report.lock();
        let fresh = || wire::WorkerProgress { run_id: run.to_string(), ..wire::WorkerProgress::default() };
        change(report.progress.entry(run.clone()).or_insert_with(fresh));
        self.0.news.notify_one();
    }

    /// Tells no more of a run.
    pub(crate) fn forget(&self, run: &RunId) {
        self.0.report.lock().progress.remove(run);
    }

    /// Tells what happened, with the next sign of life.
    pub(crate) fn event(&self, run: &RunId, event: Event) {
        let mut report = self.0.report.lock();
        report.sequence += 1;
        let sequence = report.sequence;
        report.events.push_back(wire::LearnerEvent { run_id: run.to_string(), sequence, event: Some(event) });
    }

    fn message(&self, worker: &str, lease: u64, draining: bool) -> wire::HeartbeatRequest {
        let report = self.0.report.lock();
        let progress = report.progress.values().cloned().collect();
        let events = report.events.iter().take(EVENTS).cloned().collect();
        wire::HeartbeatRequest { worker: worker.into(), lease, progress, draining, events }
    }

    fn told(&self, count: usize) {
        self.0.report.lock().events.drain(..count);
    }
}

impl Membership {
    /// Registers and stays a member for as long as the process lives; after `shutdown` as one that takes no more work.
    pub(super) fn start(self, shutdown: Shutdown) -> (Reporter, watch::Receiver<Vec<wire::Assignment>>) {
        let (reporter, (sender, assignments)) = (Reporter::default(), watch::channel(Vec::new()));
        tokio::spawn(self.stay(reporter.clone(), sender, shutdown));
        (reporter, assignments)
    }

    async fn stay(self, reporter: Reporter, assignments: watch::Sender<Vec<wire::Assignment>>, shutdown: Shutdown) {
        let mut client = coordinator_client(self.coordinator.clone());
        let start = start_key();
        loop {
            let registered = client.register_worker(self.registration(&start)).await;
            let lease = match registered {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    publish(&assignments, answer.assignments);
                    answer.lease
                }
                Err(status) => {
                    if Reason::of(&status) == Some(Reason::VersionDiffers) {
                        tracing::error!(status = status.message(), "this worker cannot be a member");
                        std::process::exit(2);
                    }
                    tracing::warn!(
                        status = status.message(),
                        "the coordinator does not register this worker; trying again"
                    );
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            loop {
                let message = reporter.message(&self.worker, lease, shutdown.is_triggered());
                let count = message.events.len();
                let mut request = tonic::Request::new(message);
                request.set_timeout(Duration::from_secs(3));
                match client.heartbeat(request).await {
                    Ok(answer) => {
                        reporter.told(count);
                        publish(&assignments, answer.into_inner().assignments);
                    }
                    Err(status) if Reason::of(&status) == Some(Reason::LeaseLost) => break,
                    Err(status) => {
                        tracing::warn!(status = status.message(), "the coordinator did not hear this worker")
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(BEAT) => {}
                    () = reporter.0.news.notified() => {}
                }
            }
        }
    }

    fn registration(&self, start: &str) -> wire::RegisterWorkerRequest {
        let role = match self.role {
            Role::Rollout => wire::Role::Rollout,
            Role::Judge => wire::Role::Judge,
            Role::Learner => wire::Role::Learner,
        };
        wire::RegisterWorkerRequest {
            worker: self.worker.clone(),
            role: role.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            address: self.address.clone(),
            budget_bytes: self.budget_bytes,
            idempotency_key: start.into(),
        }
    }
}

fn publish(sender: &watch::Sender<Vec<wire::Assignment>>, new: Vec<wire::Assignment>) {
    sender.send_if_modified(|now| {
        let changed = *now != new;
        *now = new;
        changed
    });
}

/// Names this start of the process.
fn start_key() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{now:x}", std::process::id())
}
