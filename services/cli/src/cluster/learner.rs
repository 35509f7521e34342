//! The learner worker: one run at a time, from the last checkpoint, and its models for those who sample.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use joust_core::{DropReason, Progress, Shutdown};
use joust_engine::Snapshot;
use joust_learner::{
    Ended, Evaluation, Observer, Outlet, Part, Requests, StepReport,
    server::{Server, Service, Serving},
};
use joust_model::Weights;
use joust_proto::coordinator::v1::{Assignment, CheckpointEvent, EvaluationEvent, StepEvent, learner_event::Event};
use joust_rpc::{Services, sized::learner_server};
use tokio::sync::{mpsc, watch};

use super::{
    Worker,
    membership::Reporter,
    runs::{self, Served, Work},
};
use crate::{
    optim,
    run::{
        assemble,
        folder::{self, Claim},
        roles,
    },
};

/// Steps by hand that wait.
const ASKED: usize = 64;

pub(super) fn work(
    worker: &Arc<Worker>,
    assignments: watch::Receiver<Vec<Assignment>>,
    shutdown: Shutdown,
) -> (Services, Work) {
    let server = Server::new(&worker.name);
    let services = Services::default().with(learner_server(Service(server.clone())));
    let worker = worker.clone();
    let serve = move |served: Served| learn(worker.clone(), server.clone(), served);
    (services, Box::pin(runs::each(assignments, shutdown, true, serve)))
}

/// Trains a run until it ends or is taken away, and tells which.
async fn learn(worker: Arc<Worker>, server: Arc<Server>, served: Served) -> anyhow::Result<()> {
    let (run, generation) = (served.run().clone(), served.assignment.borrow().generation);
    worker.reporter.progress(&run, |told| {
        *told =
            joust_proto::coordinator::v1::WorkerProgress { run_id: run.to_string(), generation, ..Default::default() };
    });
    let trained = train(&worker, &server, &served, generation).await;
    server.serve(None);
    let leaving = served.stop.is_triggered() && !served.assignment.borrow().stopping;
    let ended = match trained {
        Ok(Ended::Stopped) if leaving => {
            worker.reporter.forget(&run);
            return Ok(());
        }
        Ok(ended) => Ok(word(ended)),
        // The queue was away, or another learner has the run: the coordinator says what comes next.
        Err(error) if is_passing(&error) => return Err(error),
        Err(error) => {
            tracing::error!(run = %run, error = format!("{error:#}"), "the run cannot be trained");
            Err(crate::explained(&error))
        }
    };
    worker.reporter.progress(&run, |told| match ended {
        Ok(word) => told.ended = word.into(),
        Err(error) => told.failed = error,
    });
    Ok(())
}

fn word(ended: Ended) -> &'static str {
    match ended {
        Ended::Finished => "finished",
        Ended::Stopped => "stopped",
        Ended::MaxKl => "max_kl",
        Ended::Patience => "patience",
        Ended::Budget => "budget",
    }
}

/// Returns whether the same run may go well when it is opened again.
fn is_passing(error: &anyhow::Error) -> bool {
    let of_queue = |error: &joust_learner::Error| matches!(error, joust_learner::Error::Queue(_));
    error.downcast_ref::<joust_learner::Error>().is_some_and(of_queue)
        || error.downcast_ref::<joust_queue::Error>().is_some()
}

async fn train(worker: &Worker, server: &Server, served: &Served, generation: u64) -> anyhow::Result<Ended> {
    let resolved = served.resolved.clone();
    optim::set_threads(match resolved.run.learner.optim.threads {
        0 => worker.deployment.threads.tensor,
        threads => threads,
    });
    let opened = tokio::task::spawn_blocking(move || assemble::open(&resolved));
    let parts = opened.await.context("opening the run's inputs panicked")??;
    let (resolved, run) = (&*served.resolved, &served.resolved.run);
    let dir = &run.output.dir;
    let queue_name = worker.deployment.queue.url.as_deref();
    folder::claim(resolved, (&parts.fingerprint, queue_name), Claim::Assigned)?;
    let weights = dir.join(format!(".weights-{}", worker.name));
    let outlet = Arc::new(tokio::task::spawn_blocking(move || Outlet::open(&weights)).await??);
    let stage = roles::stage(run, &parts, worker.queue.clone())?;
    let (words, config) = (parts.model.words.clone(), parts.model.config.clone());
    outlet.put_files(Part::Initial, stage.initial_id(), |staging| {
        let put = std::fs::remove_dir(staging)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(joust_model::publish_folder(staging, &words, &config, &parts.model.weights)?));
        put.map_err(|error| joust_learner::Error::Outlet { path: staging.into(), reason: format!("{error:#}") })
    })?;
    for judge in &run.judge {
        if let Some(model) = judge.clone().model_mut() {
            outlet.offer(judge.name(), &*model);
        }
    }
    let (progress, watching) = watch::channel(None);
    let (config, mut deps) = roles::learner(resolved, &parts, &stage, progress)?;
    drop(parts);
    let (sender, receiver) = mpsc::channel(ASKED);
    let by_hand = served.assignment.borrow().by_hand;
    deps.requests = Some(Requests { asked: receiver, by_hand });
    let sets = outlet.watch();
    deps.outlet = Some(outlet.clone());
    deps.observer =
        Box::new(Telling { files: deps.observer, run: run.name.clone(), reporter: worker.reporter.clone() });
    server.serve(Some(Serving {
        run: run.name.clone(),
        queue: worker.queue.clone(),
        outlet,
        progress: watching.clone(),
        checkpoints: dir.join("checkpoints"),
        ranks: run.learner.ranks,
        requests: sender,
        by_hand,
    }));
    let stop = Shutdown::default();
    let learning = joust_learner::run(config, deps, stop.clone());
    tokio::pin!(learning);
    let (mut watching, mut assignment, mut sets) = (watching, served.assignment.clone(), sets);
    loop {
        if assignment.borrow_and_update().stopping {
            stop.trigger();
        }
        tokio::select! {
            ended = &mut learning => return Ok(ended?.0),
            Ok(()) = watching.changed() => tell(worker, run, generation, *watching.borrow_and_update()),
            Ok(()) = assignment.changed() => {}
            Ok(()) = sets.changed() => if let Some(set) = sets.borrow_and_update().clone() {
                worker.reporter.event(&run.name, Event::Models(set.into()));
            },
            () = served.stop.wait(), if !stop.is_triggered() => stop.trigger(),
        }
    }
}

/// Tells the coordinator how far the run is.
fn tell(worker: &Worker, run: &joust_config::RunFile, generation: u64, progress: Option<Progress>) {
    let Some(progress) = progress else { return };
    worker.reporter.progress(&run.name, |told| {
        told.generation = generation;
        told.recovered = true;
        told.steps_done = progress.steps_done;
        told.policy_version = progress.version;
    });
}

/// Returns the word of a reason.
fn named(reason: &DropReason) -> String {
    // A reason without a word of its own is written as it is named in code.
    let value = serde_json::to_value(reason).ok();
    value.as_ref().and_then(|value| value.as_str()).map_or_else(|| format!("{reason:?}"), str::to_owned)
}

/// Keeps the run's files, and tells the coordinator what stands in them.
struct Telling {
    files: Box<dyn Observer>,
    run: joust_core::RunId,
    reporter: Reporter,
}

#[async_trait]
impl Observer for Telling {
    async fn resumed(&mut self, step: u64) -> joust_learner::Result<()> {
        self.reporter.progress(&self.run, |told| {
            told.restored_steps.get_or_insert(step);
        });
        self.files.resumed(step).await
    }

    async fn step(&mut self, report: StepReport) -> joust_learner::Result<()> {
        let reason = |(reason, count): (&DropReason, &u64)| (named(reason), *count);
        let event = StepEvent {
            step: report.manifest.step,
            metrics: report.metrics.clone().into_iter().collect(),
            dropped: report.dropped.iter().map(reason).collect(),
            recovered: report.recovered,
        };
        self.files.step(report).await?;
        self.reporter.event(&self.run, Event::Step(event));
        Ok(())
    }

    async fn evaluate(&mut self, steps_done: u64, policy: Arc<Snapshot>) -> joust_learner::Result<Option<Evaluation>> {
        let found = self.files.evaluate(steps_done, policy).await?;
        if let Some(Evaluation { win_rate }) = found {
            let metrics = [("eval/win_rate".to_owned(), win_rate)].into_iter().collect();
            self.reporter.event(&self.run, Event::Evaluation(EvaluationEvent { steps_done, metrics }));
        }
        Ok(found)
    }

    async fn checkpoint(&mut self, steps_done: u64) -> joust_learner::Result<()> {
        self.files.checkpoint(steps_done).await?;
        let checkpoint = format!("checkpoint-{steps_done}");
        self.reporter.event(&self.run, Event::Checkpoint(CheckpointEvent { checkpoint, steps_done }));
        Ok(())
    }

    async fn best(&mut self, steps_done: u64, policy: Weights) -> joust_learner::Result<()> {
        self.files.best(steps_done, policy).await
    }

    async fn finish(&mut self, steps_done: u64, policy: Weights) -> joust_learner::Result<()> {
        self.files.finish(steps_done, policy).await
    }
}
