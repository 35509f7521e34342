//! Starting the roles of a run in this process, and ending them together.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use joust_config::{Resolved, RunFile, run::ReferenceKind};
use joust_coordinator::{Feed, FeedDeps, feed};
use joust_core::{ModelSet, Player, Release, Shutdown};
use joust_engine::{Engine, ModelStore, Published, SamplingParams, Snapshot};
use joust_judges::{Ask, Judge};
use joust_learner::{Ended, Learners, State};
use joust_queue::Queue;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub(crate) use super::observer::archive_of;
use super::{
    assemble::{Parts, sampling},
    observer::RunObserver,
    settings::{annotate, learner_config, rules},
};
use crate::{evaluation::Evaluator, rank};

/// Answers decoded together at most.
pub(crate) const MAX_ROWS: usize = 256;
/// Longest wait for the judgements of one batch.
const JUDGING: Duration = Duration::from_secs(600);
/// Judged rollouts that wait for the archive at most.
pub(super) const ARCHIVE_BACKLOG: usize = 256;

/// What every role is built from.
pub(crate) struct Stage {
    queue: Arc<dyn Queue>,
    engine: Engine,
    models: ModelStore,
    initial: Arc<Snapshot>,
    release: Release,
}

impl Stage {
    /// Returns which weights the run begins with.
    pub(crate) fn initial_id(&self) -> &joust_core::ModelRef {
        &self.initial.id
    }
}

/// Runs all roles until the learner ends, then stops the others.
///
/// # Errors
/// The first role that failed.
pub async fn run(
    resolved: &Resolved,
    parts: Parts,
    queue: Arc<dyn Queue>,
    shutdown: Shutdown,
) -> anyhow::Result<(Ended, State)> {
    let run = &resolved.run;
    let stage = stage(run, &parts, queue)?;
    let (archive_sender, archive_task) = archive_of(run, &run.output.dir)?;
    let (progress, watching) = watch::channel(None);
    let learner = learner(resolved, &parts, &stage, progress)?;
    let mut roles = JoinSet::new();
    let stop = Shutdown::default(); // the roles around the learner end after it
    spawn_coordinator(&mut roles, run, &stage, (&parts, watching), &stop);
    spawn_rollout(&mut roles, run, &stage, &parts, &stop)?;
    spawn_judge(&mut roles, run, &stage, &parts, (archive_sender, &stop));
    drop(parts);
    let learning = joust_learner::run(learner.0, learner.1, shutdown);
    tokio::pin!(learning);
    let result = loop {
        tokio::select! {
            result = &mut learning => break result.map_err(anyhow::Error::from),
            Some(role) = roles.join_next() => {
                // A role that has nothing left to do ends quietly; one that failed ends the run.
                if let Err(error) = role.context("a role panicked").and_then(|result| result) {
                    break Err(error);
                }
            }
        }
    };
    stop.trigger();
    let mut first = result;
    while let Some(role) = roles.join_next().await {
        // What failed first is the cause; what fails while ending is its consequence.
        if let (true, Err(error)) = (first.is_ok(), role.context("a role panicked").and_then(|result| result)) {
            first = Err(error);
        }
    }
    let archived = archive_task.await.context("the archive panicked").and_then(|result| result);
    if let (true, Err(error)) = (first.is_ok(), archived) {
        first = Err(error);
    }
    first
}

/// Builds what the roles share; the engine's thread starts.
///
/// # Errors
/// Weights that are not whole.
pub(crate) fn stage(run: &RunFile, parts: &Parts, queue: Arc<dyn Queue>) -> anyhow::Result<Stage> {
    let initial = parts.model.snapshot(parts.weights_hash.clone())?;
    let ema = averaged(run).then(|| initial.clone());
    let past = keeps_past(run).then(|| initial.clone());
    let id = |model: &Option<Arc<Snapshot>>| model.as_ref().map(|model| model.id.clone());
    let set = ModelSet {
        policy: initial.id.clone(),
        reference: initial.id.clone(),
        ema: id(&ema),
        past: id(&past).into_iter().collect(),
    };
    let models = ModelStore::new(Published { set, policy: initial.clone(), reference: initial.clone(), ema, past });
    Ok(Stage {
        queue,
        engine: Engine::start(parts.device.clone(), MAX_ROWS)?,
        models,
        initial,
        release: release(run, parts.steps),
    })
}

/// Builds when prompts may be put.
fn release(run: &RunFile, steps: u64) -> Release {
    Release {
        prompts_per_step: u64::from(run.learner.prompts_per_step),
        steps,
        max_staleness: u64::from(run.pipeline.max_staleness),
        iteration_steps: run.learner.iteration_steps,
    }
}

/// Returns whether a player or the reference needs the averaged policy.
pub(crate) fn averaged(run: &RunFile) -> bool {
    run.sampling.players.contains(&Player::Ema) || run.reference.kind == ReferenceKind::Ema
}

/// Returns whether a player needs the policy of one iteration ago.
pub(crate) fn keeps_past(run: &RunFile) -> bool {
    run.sampling.players.contains(&Player::Past)
}

fn spawn_coordinator(
    roles: &mut JoinSet<anyhow::Result<()>>,
    run: &RunFile,
    stage: &Stage,
    (parts, progress): (&Parts, watch::Receiver<Option<joust_core::Progress>>),
    stop: &Shutdown,
) {
    let config = Feed { run: run.name.clone(), release: stage.release };
    let prompts = Arc::new(parts.inputs.clone().stream(run));
    let deps = FeedDeps { queue: stage.queue.clone(), prompts, progress };
    let stop = stop.clone();
    roles.spawn(async move { Ok(feed(config, deps, stop).await?) });
}

fn spawn_rollout(
    roles: &mut JoinSet<anyhow::Result<()>>,
    run: &RunFile,
    stage: &Stage,
    parts: &Parts,
    stop: &Shutdown,
) -> anyhow::Result<()> {
    let params = sampling(run, &parts.model.tokenizer);
    let config = rollout_config(run, parts.steps, (params, "rollout-0"), || Ok(parts.judge.clone()))?;
    let deps = joust_rollout::Deps {
        queue: stage.queue.clone(),
        engine: stage.engine.clone(),
        models: stage.models.clone(),
        tokenizer: parts.model.tokenizer.clone(),
        under_way: joust_rollout::UnderWay::default(),
    };
    let stop = stop.clone();
    roles.spawn(async move { Ok(joust_rollout::run(config, deps, stop).await?) });
    Ok(())
}

/// Builds the settings of a run's rollout worker; `judge` is opened where answers are revised.
///
/// # Errors
/// A judge that cannot be opened.
pub(crate) fn rollout_config(
    run: &RunFile,
    steps: u64,
    (params, worker): (SamplingParams, &str),
    judge: impl FnOnce() -> anyhow::Result<Arc<dyn Judge>>,
) -> anyhow::Result<joust_rollout::Config> {
    let revised = run.sampling.players.contains(&Player::Revised);
    Ok(joust_rollout::Config {
        run: run.name.clone(),
        worker: worker.into(),
        players: run.sampling.players.clone(),
        mixture_coef: run.sampling.mixture_coef,
        annotate: annotate(run),
        style: run.sampling.style.clone(),
        revision: if revised { Some(revision(run, judge()?)) } else { None },
        params,
        seed: run.seed,
        batch: run.learner.prompts_per_step as usize,
        release: release(run, steps),
    })
}

/// Builds how answers are revised; the training judge says which.
fn revision(run: &RunFile, judge: Arc<dyn Judge>) -> joust_rollout::Revision {
    let first = run.sampling.players.iter().filter(|player| **player != Player::Revised).count();
    joust_rollout::Revision {
        judge,
        ask: asked(run, first as u32),
        timeout: JUDGING,
        feedback: run.sampling.revision.feedback.clone(),
        request: run.sampling.revision.request.clone(),
    }
}

/// Returns what the judge is asked about so many answers.
fn asked(run: &RunFile, answers: u32) -> Ask {
    match run.feedback.ask {
        joust_config::run::Ask::Score => Ask::Score,
        joust_config::run::Ask::Compare if answers == 2 => Ask::Compare,
        _ => Ask::Rank,
    }
}

fn spawn_judge(
    roles: &mut JoinSet<anyhow::Result<()>>,
    run: &RunFile,
    stage: &Stage,
    parts: &Parts,
    (archive, stop): (Option<mpsc::Sender<joust_judge::Judged>>, &Shutdown),
) {
    let config = judge_config(run, parts.steps, "judge-0");
    let deps = joust_judge::Deps { queue: stage.queue.clone(), judge: parts.judge.clone(), archive };
    let stop = stop.clone();
    roles.spawn(async move { Ok(joust_judge::run(config, deps, stop).await?) });
}

/// Builds the settings of a run's judge worker.
pub(crate) fn judge_config(run: &RunFile, steps: u64, worker: &str) -> joust_judge::Config {
    joust_judge::Config {
        run: run.name.clone(),
        worker: worker.into(),
        ask: asked(run, run.sampling.judged()),
        rules: rules(run, steps),
        seed: run.seed,
        batch: run.learner.prompts_per_step as usize,
        timeout: JUDGING,
    }
}

/// Builds the run's learner, from the initial weights.
///
/// # Errors
/// Weights that are not whole, or a loss that refuses its settings.
pub(crate) fn learner(
    resolved: &Resolved,
    parts: &Parts,
    stage: &Stage,
    progress: watch::Sender<Option<joust_core::Progress>>,
) -> anyhow::Result<(joust_learner::Config, joust_learner::Deps)> {
    let run = &resolved.run;
    let model = &parts.model;
    let evaluator = Evaluator {
        engine: stage.engine.clone(),
        tokenizer: model.tokenizer.clone(),
        judge: parts.eval_judge.clone(),
        prompts: parts.inputs.prompts.eval().iter().take(run.eval.prompts as usize).cloned().collect(),
        params: sampling(run, &model.tokenizer),
        seed: run.seed,
    };
    let learners = match run.learner.ranks {
        1 => Learners::Thread(Some(Box::new(rank::build(run, model, parts.steps, &parts.device)?))),
        _ => Learners::Processes(rank::processes(resolved, parts.steps)?),
    };
    let observer = RunObserver::new(run, parts, evaluator, stage.initial.clone());
    let deps = joust_learner::Deps {
        queue: stage.queue.clone(),
        learners,
        initial: stage.initial.clone(),
        models: stage.models.clone(),
        outlet: None,
        requests: None,
        progress,
        observer: Box::new(observer),
    };
    Ok((learner_config(resolved, parts), deps))
}
