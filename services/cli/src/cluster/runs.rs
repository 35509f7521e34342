//! Serving the runs that a worker is told to, each in a task of its own.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;
use joust_config::{Resolved, RunFile, resolve};
use joust_core::{RunId, Shutdown};
use joust_proto::coordinator::v1::Assignment;
use tokio::{sync::watch, task::JoinHandle};

/// Pause before a run that failed is served again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a worker does until it is told to stop.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A run to serve.
#[derive(Clone)]
pub(super) struct Served {
    /// The run file in force.
    pub(super) resolved: Arc<Resolved>,
    /// Its assignment, as it changes.
    pub(super) assignment: watch::Receiver<Assignment>,
    /// Asks to leave the run.
    pub(super) stop: Shutdown,
}

impl Served {
    /// Returns the run.
    pub(super) fn run(&self) -> &RunId {
        &self.resolved.run.name
    }
}

struct Task {
    assignment: watch::Sender<Assignment>,
    stop: Shutdown,
    handle: JoinHandle<()>,
}

/// Serves each assigned run by `serve` until it is taken away or the worker stops; one that failed is served again. With `by_generation` a
/// run of another generation is another run.
pub(super) async fn each<F>(
    mut assignments: watch::Receiver<Vec<Assignment>>,
    shutdown: Shutdown,
    by_generation: bool,
    serve: impl Fn(Served) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let key = |assignment: &Assignment| {
        (
            assignment.run_id.clone(),
            assignment.settings_hash.clone(),
            if by_generation { assignment.generation } else { 0 },
        )
    };
    let mut tasks = BTreeMap::new();
    loop {
        let now: BTreeMap<_, Assignment> =
            assignments.borrow_and_update().iter().map(|assignment| (key(assignment), assignment.clone())).collect();
        let gone: Vec<_> = tasks.keys().filter(|key| !now.contains_key(key)).cloned().collect();
        for key in gone {
            let task: Option<Task> = tasks.remove(&key);
            end(task).await;
        }
        for (key, assignment) in now {
            match tasks.get(&key) {
                Some(task) => drop(task.assignment.send_replace(assignment)),
                None => drop(tasks.insert(key, begin(assignment, serve.clone()))),
            }
        }
        tokio::select! {
            changed = assignments.changed() => if changed.is_err() { break },
            () = shutdown.wait() => break,
        }
    }
    for task in tasks.values() {
        task.stop.trigger();
    }
    for task in tasks.into_values() {
        end(Some(task)).await;
    }
}

async fn end(task: Option<Task>) {
    let Some(task) = task else { return };
    task.stop.trigger();
    if task.handle.await.is_err() {
        tracing::error!("the task of a run panicked");
    }
}

fn begin<F>(first: Assignment, serve: impl Fn(Served) -> F + Send + Sync + 'static) -> Task
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (sender, assignment) = watch::channel(first);
    let stop = Shutdown::default();
    let handle = tokio::spawn({
        let stop = stop.clone();
        async move {
            while !stop.is_triggered() {
                let (id, toml) = {
                    let now = assignment.borrow();
                    (now.run_id.clone(), now.run_toml.clone())
                };
                let resolved = resolve::<RunFile>(&toml, std::path::Path::new("/run.toml"), &[], &[]);
                let attempt = async {
                    let resolved = Arc::new(resolved.context("the run file does not resolve")?);
                    serve(Served { resolved, assignment: assignment.clone(), stop: stop.clone() }).await
                };
                match attempt.await {
                    Ok(()) => stop.wait().await,
                    Err(error) => {
                        tracing::error!(
                            run = id,
                            error = format!("{error:#}"),
                            "the run cannot be served; trying again"
                        );
                        tokio::select! {
                            () = tokio::time::sleep(PAUSE) => {}
                            () = stop.wait() => {}
                        }
                    }
                }
            }
        }
    });
    Task { assignment: sender, stop, handle }
}
