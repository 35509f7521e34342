//! One process's stretch of a run: recovery, then step after step until the end.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use joust_core::{Example, Manifest, ModelSet, Outcome, Progress, RecordId, Shutdown, decode, encode, failpoint};
use joust_engine::Snapshot;
use joust_model::Weights;
use joust_queue::{AssignedStep, Fence, Lease, Queue, StepManifest, Topic};
use joust_train::{Checkpoint, StepMetrics, list, prune};
use tokio::{sync::mpsc::Receiver, time::Instant};
use tracing::Instrument;

use crate::{
    Asked, Config, Error, Result, StepReport,
    alarm::Displacement,
    by_hand::next,
    collect::Collector,
    learners::Running,
    ledger::{Best, Ledger, State},
    observe::{Observer, outcome_metrics},
    outlet::Outlet,
    plan::{Harvest, ReplayPool, harvest, manifest},
    publish::no_policy,
    rank::Kept,
};

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Finished,
    /// A stop was asked for; the run can be resumed.
    Stopped,
    /// `eval.stop.max_kl` was exceeded.
    MaxKl,
    /// `eval.stop.patience` evaluations brought no better win rate.
    Patience,
    /// `eval.stop.max_seconds` are over.
    Budget,
}

pub(crate) struct Session<'a> {
    pub(crate) config: Config,
    shutdown: Shutdown,
    pub(crate) learners: Running,
    pub(crate) topic: Topic,
    pub(crate) fence: Fence,
    pub(crate) state: State,
    pub(crate) pool: ReplayPool,
    recovered: Vec<AssignedStep>,
    pub(crate) around: Around<'a>,
    /// The models that were published last.
    pub(crate) set: ModelSet,
    /// The policy among them, where it was published in this process.
    pub(crate) policy: Option<Arc<Snapshot>>,
    /// A checkpoint on its way to the disk.
    writing: Option<Staged>,
    displaced: Displacement,
    /// Whether the policy stays unpublished after the step under way.
    pub(crate) quiet: bool,
    /// What the last step told.
    pub(crate) told: StepMetrics,
    /// How long the step under way had to wait for its examples.
    waited_s: f64,
    started: Instant,
}

/// A checkpoint whose parts are being written.
struct Staged {
    staging: PathBuf,
    state: State,
}

/// What outlives the ranks of a session.
pub(crate) struct Around<'a> {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) initial: Arc<Snapshot>,
    pub(crate) models: joust_engine::ModelStore,
    pub(crate) outlet: Option<Arc<Outlet>>,
    pub(crate) progress: tokio::sync::watch::Sender<Option<Progress>>,
    pub(crate) observer: &'a mut dyn Observer,
    /// Holds the leases of later steps.
    pub(crate) collector: &'a mut Collector,
    /// Steps that the session trained.
    pub(crate) trained: &'a mut u64,
}

impl<'a> Session<'a> {
    /// Restores the newest whole checkpoint and reads what the queue holds beyond it.
    pub(crate) async fn open(
        config: Config,
        mut learners: Running,
        around: Around<'a>,
        shutdown: Shutdown,
    ) -> Result<Self> {
        let (found, damaged) = learners.restore(config.checkpoints.clone()).await?;
        for error in damaged {
            tracing::warn!(error, "checkpoint passed over");
        }
        let state = found.unwrap_or_else(|| State::initial(&config, &around.initial));
        let topic = Topic::pairs(&config.run);
        let fence = around.queue.fence(&topic).await?;
        let (pool, recovered) = recover(&*around.queue, &topic, &config, state.step).await?;
        let set = around.models.current().set;
        let started = Instant::now();
        let (writing, displaced) = (None, Displacement::default());
        Ok(Self {
            config,
            shutdown,
            learners,
            topic,
            fence,
            state,
            pool,
            recovered,
            around,
            set,
            policy: None,
            writing,
            displaced,
            quiet: false,
            told: StepMetrics::new(),
            waited_s: 0.0,
            started,
        })
    }

    /// Replays what was assigned; returns why the run ends, if it does.
    pub(crate) async fn recover_steps(&mut self) -> Result<Option<Ended>> {
        self.around.observer.resumed(self.state.step).await?;
        if self.state.step > 0 {
            self.publish(true).await?;
        } else if let Some(outlet) = &self.around.outlet {
            outlet.announce(self.set.clone());
        }
        for assigned in std::mem::take(&mut self.recovered) {
            let outcomes = decode_all(&assigned)?;
            let plan: Manifest = decode("manifest", &assigned.manifest.body)?;
            let harvest = harvest(&outcomes, self.config.version(plan.step), &self.config);
            tracing::info!(step = plan.step, "replaying a step that was assigned before the crash");
            let traces = assigned.items.iter().filter_map(|item| item.trace.as_deref());
            let span = joust_telemetry::step(self.config.run.as_str(), plan.step, traces);
            if let Some(ended) = self.train(plan, harvest, &outcomes, true).instrument(span).await? {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    /// Replays what was assigned, then trains on.
    pub(crate) async fn run(mut self, mut requests: Option<&mut Receiver<Asked>>) -> Result<(Ended, State)> {
        if let Some(ended) = self.recover_steps().await? {
            return self.end(ended).await;
        }
        self.tell_progress();
        while self.state.step < self.config.steps {
            let step = self.state.step;
            let range = step * self.config.prompts_per_step..(step + 1) * self.config.prompts_per_step;
            let began = Instant::now();
            let collected = tokio::select! {
                collected = self.around.collector.step(range, &self.shutdown) => collected?,
                asked = next(&mut requests) => {
                    self.answer(asked).await?;
                    continue;
                }
            };
            let Some(collected) = collected else { return self.end(Ended::Stopped).await };
            self.waited_s = began.elapsed().as_secs_f64();
            let (leases, outcomes, traces): (Vec<Lease>, Vec<Outcome>, Vec<Option<String>>) =
                collected.into_iter().collect();
            let span =
                joust_telemetry::step(self.config.run.as_str(), step, traces.iter().flatten().map(String::as_str));
            let harvest = harvest(&outcomes, self.config.version(step), &self.config);
            let plan = manifest(&self.config, step, &harvest.examples, &self.pool)?;
            failpoint::pass("learner_before_assign");
            let durable = StepManifest { step, body: encode(&plan) };
            self.around.queue.assign(&self.topic, leases, durable, self.fence).await?;
            failpoint::pass("learner_after_assign");
            if let Some(ended) = self.train(plan, harvest, &outcomes, false).instrument(span).await? {
                return self.end(ended).await;
            }
            self.tell_progress();
        }
        self.end(Ended::Finished).await
    }

    /// Trains one planned step and does what follows from it; returns why the run ends, if it does.
    pub(crate) async fn train(
        &mut self,
        plan: Manifest,
        harvest: Harvest,
        outcomes: &[Outcome],
        recovered: bool,
    ) -> Result<Option<Ended>> {
        let batches = self.resolve(&plan, &harvest.examples)?;
        let began = Instant::now();
        let every = self.config.diagnose_every;
        let mut metrics = self.update(batches, every > 0 && plan.step.is_multiple_of(every)).await?;
        metrics.insert("time/train_s".into(), began.elapsed().as_secs_f64());
        metrics.insert("time/wait_s".into(), std::mem::take(&mut self.waited_s));
        *self.around.trained += 1;
        failpoint::pass("learner_after_step");
        self.still_ours(plan.step).await?;
        self.seal().await?; // the update has waited for its parts
        outcome_metrics(&mut metrics, outcomes, &harvest, self.config.version(plan.step));
        let sums = ["logps/chosen", "logps/ref_chosen"].map(|name| metrics.get(name).copied());
        if let [Some(policy), Some(reference)] = sums {
            self.displaced.watch(plan.step, policy - reference);
        }
        self.state.ledger.enter(&plan, harvest.trained, &harvest.dropped);
        self.state.step = plan.step + 1;
        self.pool.enter(plan.step, harvest.examples);
        if self.config.ends_iteration(self.state.step) && !self.quiet {
            let began = Instant::now();
            self.publish(false).await?;
            metrics.insert("time/publish_s".into(), began.elapsed().as_secs_f64());
        }
        failpoint::pass("learner_after_publish");
        let kl = metrics.get("objective/kl").copied().unwrap_or_default();
        let ledger = self.state.ledger.clone();
        self.told.clone_from(&metrics);
        let report = StepReport { manifest: plan, metrics, dropped: harvest.dropped, ledger, recovered };
        self.around.observer.step(report).await?;
        joust_telemetry::instruments::step_trained(self.config.run.as_str(), began.elapsed());
        if self.config.stop.max_kl > 0.0 && kl > self.config.stop.max_kl {
            return Ok(Some(Ended::MaxKl));
        }
        let stop = self.evaluate().await?;
        if self.config.checkpoint_due(self.state.step) && self.state.step < self.config.steps {
            self.checkpoint().await?;
        }
        let budget = self.config.stop.max_seconds;
        let over = budget > 0 && self.seconds() > budget as f64;
        Ok(stop.or(over.then_some(Ended::Budget)))
    }

    /// Fails where another learner has taken the run over while this process stood still: nothing that it did since is told or kept.
    async fn still_ours(&mut self, step: u64) -> Result<()> {
        if self.around.outlet.is_none() {
            return Ok(()); // nobody else can
        }
        let assigned = StepManifest { step, body: Vec::new() };
        match self.around.queue.assign(&self.topic, Vec::new(), assigned, self.fence).await {
            Err(joust_queue::Error::AlreadyAssigned { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks up the examples that a manifest names.
    fn resolve(&self, plan: &Manifest, fresh: &[Example]) -> Result<Vec<Vec<Example>>> {
        let fresh: BTreeMap<RecordId, &Example> = fresh.iter().map(|example| (example.id, example)).collect();
        let find = |id: &RecordId| {
            let found = fresh.get(id).copied().or_else(|| self.pool.get(id)).cloned();
            found.ok_or_else(|| Error::MissingExample { step: plan.step, id: id.to_string() })
        };
        plan.micro_batches.iter().map(|batch| batch.iter().map(find).collect()).collect()
    }

    /// Prepares the examples once and passes over them; meanwhile what is held for later steps stays leased.
    async fn update(&mut self, batches: Vec<Vec<Example>>, diagnose: bool) -> Result<StepMetrics> {
        let training = self.learners.step(batches, (self.config.epochs, diagnose));
        tokio::pin!(training);
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tokio::select! {
                metrics = &mut training => return metrics,
                _ = tick.tick() => self.around.collector.renew().await?,
            }
        }
    }

    async fn evaluate(&mut self) -> Result<Option<Ended>> {
        let (step, every) = (self.state.step, self.config.eval_every);
        if every == 0 || !(step.is_multiple_of(every) || step == self.config.steps) {
            return Ok(None);
        }
        let published = self.policy.clone().filter(|_| self.config.ends_iteration(step) && !self.quiet);
        let policy = match published {
            Some(policy) => policy,
            None => self.snapshot().await?,
        };
        let Some(evaluation) = self.around.observer.evaluate(step, policy).await? else {
            return Ok(None);
        };
        if self.state.best.is_none_or(|best| evaluation.win_rate > best.win_rate) {
            self.state.best = Some(Best { step, win_rate: evaluation.win_rate });
            self.state.evals_without_gain = 0;
            let weights = self.weights().await?;
            self.around.observer.best(step, weights).await?;
        } else {
            self.state.evals_without_gain += 1;
        }
        let patience = self.config.stop.patience;
        Ok((patience > 0 && self.state.evals_without_gain >= patience).then_some(Ended::Patience))
    }

    /// Begins to write a checkpoint of this step; it becomes one in [`Self::seal`], until when a crash goes back to the one before.
    pub(crate) async fn checkpoint(&mut self) -> Result<()> {
        self.seal().await?;
        let step = self.state.step;
        self.state.replay_from.insert(step, self.pool.oldest_step().unwrap_or(step));
        let state = State { seconds: self.seconds(), ..self.state.clone() };
        failpoint::pass("checkpoint_before_write");
        let staging = Checkpoint::stage(&self.config.checkpoints, step)?;
        self.learners.begin_checkpoint(staging.clone()).await?;
        self.writing = Some(Staged { staging, state });
        Ok(())
    }

    /// Waits for the checkpoint on its way to the disk, if there is one, then lets the queue forget what it covers.
    pub(crate) async fn seal(&mut self) -> Result<()> {
        let Some(Staged { staging, state }) = self.writing.take() else { return Ok(()) };
        let step = state.step;
        let written = self.learners.end_checkpoint().await?;
        if step > 0 {
            self.still_ours(step - 1).await?;
        }
        Checkpoint::seal(&staging, step, written, &state)?;
        failpoint::pass("checkpoint_after_write");
        prune(&self.config.checkpoints, self.config.keep_checkpoints)?;
        // The oldest checkpoint that stays must still find its steps, should the newer ones turn out damaged.
        let oldest = list(&self.config.checkpoints).last().map_or(step, |checkpoint| checkpoint.step);
        self.state.replay_from.retain(|step, _| *step >= oldest);
        if oldest > 0 {
            let keep_from = self.state.replay_from.get(&oldest).copied().unwrap_or(oldest);
            self.around.queue.retire(&self.topic, oldest - 1, keep_from, self.fence).await?;
        }
        failpoint::pass("checkpoint_after_retire");
        self.around.observer.checkpoint(step).await
    }

    /// Within an iteration no checkpoint is written: its sampler and reference would be lost. The steps since the last one are
    /// in the queue and are replayed.
    pub(crate) async fn end(mut self, ended: Ended) -> Result<(Ended, State)> {
        if self.config.ends_iteration(self.state.step) || self.state.step == self.config.steps {
            self.checkpoint().await?;
        }
        self.seal().await?;
        let weights = self.weights().await?;
        self.around.observer.finish(self.state.step, weights).await?;
        Ok((ended, self.state))
    }

    async fn weights(&mut self) -> Result<Weights> {
        self.learners.weights(Kept::Policy, true).await?.ok_or_else(no_policy)
    }

    pub(crate) fn tell_progress(&self) {
        let progress = Progress { steps_done: self.state.step, version: self.config.version(self.state.step) };
        self.around.progress.send_replace(Some(progress));
    }

    fn seconds(&self) -> f64 {
        self.state.seconds + self.started.elapsed().as_secs_f64()
    }
}

impl Config {
    /// Returns the policy version that trains, and after the step before it was published, at this step.
    pub(crate) fn version(&self, step: u64) -> u64 {
        step / self.iteration_steps.max(1)
    }

    /// Returns whether an iteration is over after so many steps.
    pub(crate) fn ends_iteration(&self, steps: u64) -> bool {
        steps.is_multiple_of(self.iteration_steps.max(1))
    }

    /// Returns whether a checkpoint is written after so many steps: at the first iteration's end in every `checkpoint_every` steps.
    fn checkpoint_due(&self, steps: u64) -> bool {
        let (every, iteration) = (self.checkpoint_every.max(1), self.iteration_steps.max(1));
        self.ends_iteration(steps) && steps / every > (steps - iteration) / every
    }
}

impl State {
    fn initial(config: &Config, initial: &Snapshot) -> Self {
        Self {
            step: 0,
            policy: initial.id.clone(),
            settings_hash: config.settings_hash.clone(),
            ledger: Ledger::default(),
            best: None,
            evals_without_gain: 0,
            seconds: 0.0,
            replay_from: BTreeMap::new(),
        }
    }
}

/// Reads what the queue holds: the replay pool as it was after `step` steps, and the assigned steps from there on.
async fn recover(
    queue: &dyn Queue,
    topic: &Topic,
    config: &Config,
    step: u64,
) -> Result<(ReplayPool, Vec<AssignedStep>)> {
    let mut pool = ReplayPool::new(config.replay.capacity);
    for (step, item) in queue.kept(topic).await? {
        let outcome: Outcome = decode("outcome", &item.body)?;
        pool.enter(step, harvest(&[outcome], config.version(step), config).examples);
    }
    let assigned = queue.assigned(topic, 0).await?;
    let (covered, recovered): (Vec<_>, Vec<_>) = assigned.into_iter().partition(|found| found.manifest.step < step);
    for found in covered {
        let step = found.manifest.step;
        pool.enter(step, harvest(&decode_all(&found)?, config.version(step), config).examples);
    }
    match recovered.first().map(|first| first.manifest.step) {
        Some(found) if found != step => Err(Error::Gap { expected: step, found }),
        _ => Ok((pool, recovered)),
    }
}

fn decode_all(assigned: &AssignedStep) -> Result<Vec<Outcome>> {
    assigned.items.iter().map(|item| Ok(decode("outcome", &item.body)?)).collect()
}
