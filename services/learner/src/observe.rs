//! What the learner tells and asks: the border to metrics, evaluation and files.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use joust_core::{DropReason, Example, ExampleSource, Manifest, Outcome, Target};
use joust_engine::Snapshot;
use joust_model::Weights;
use joust_train::StepMetrics;

use crate::{Ledger, Result, plan::Harvest};

/// One step that is done.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Its plan.
    pub manifest: Manifest,
    /// Metrics by name, TRL's where TRL has one.
    pub metrics: StepMetrics,
    /// Prompts of this step that gave no example, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Counts since the start of the run.
    pub ledger: Ledger,
    /// Whether the step was replayed after a crash.
    pub recovered: bool,
}

/// What an evaluation found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Share of held-out prompts on which the policy beat the initial policy, ties counted a half.
    pub win_rate: f64,
}

/// Takes reports and makes evaluations; the caller of the learner decides what that means.
#[async_trait]
pub trait Observer: Send {
    /// Learns where the run continues: everything reported at this step or later will be reported again.
    async fn resumed(&mut self, step: u64) -> Result<()>;

    /// Takes a finished step.
    async fn step(&mut self, report: StepReport) -> Result<()>;

    /// Compares the policy after `steps_done` steps with the initial policy on held-out prompts.
    async fn evaluate(&mut self, steps_done: u64, policy: Arc<Snapshot>) -> Result<Option<Evaluation>>;

    /// Learns that the checkpoint `checkpoint-<steps_done>` is durable.
    async fn checkpoint(&mut self, steps_done: u64) -> Result<()> {
        tracing::info!(steps_done, "checkpoint written");
        Ok(())
    }

    /// Keeps these float32 weights as the best so far.
    async fn best(&mut self, steps_done: u64, policy: Weights) -> Result<()>;

    /// Keeps these float32 weights as the result of the run, finished or stopped.
    async fn finish(&mut self, steps_done: u64, policy: Weights) -> Result<()>;
}

/// Adds what the outcomes tell about the step, under TRL's names where it has one.
pub(crate) fn outcome_metrics(metrics: &mut StepMetrics, outcomes: &[Outcome], harvest: &Harvest, version: u64) {
    let mut mean = |name: &str, values: Vec<f64>| {
        if !values.is_empty() {
            metrics.insert(name.to_owned(), values.iter().sum::<f64>() / values.len() as f64);
        }
    };
    let margin = |example: &Example| match (&example.target, example.answers.as_slice()) {
        (Target::Pair { .. }, [chosen, rejected]) => Some(chosen.score? - rejected.score?),
        _ => None,
    };
    mean("objective/scores", outcomes.iter().flat_map(|outcome| outcome.scores.iter().copied()).collect());
    mean("objective/scores_margin", harvest.examples.iter().filter_map(margin).collect());
    let answered = || outcomes.iter().filter(|outcome| outcome.mean_tokens > 0.0);
    mean("val/contain_eos_token", answered().map(|outcome| outcome.eos_share).collect());
    mean("completions/mean_length", answered().map(|outcome| outcome.mean_tokens).collect());
    let sampled = || harvest.examples.iter().filter(|example| example.source == ExampleSource::Online);
    let staleness = |example: &Example| example.age(version) as f64;
    mean("staleness/mean", sampled().map(staleness).collect());
    mean("staleness/max", sampled().map(staleness).reduce(f64::max).into_iter().collect());
    let given = harvest.examples.iter().filter(|example| example.source == ExampleSource::Offline).count();
    if given > 0 {
        metrics.insert("examples/offline".into(), given as f64);
    }
    let of_people = harvest.examples.iter().filter(|example| example.source == ExampleSource::Human).count();
    if of_people > 0 {
        metrics.insert("examples/human".into(), of_people as f64);
    }
    let dropped: u64 = harvest.dropped.values().sum();
    metrics.insert("prompts/dropped".into(), dropped as f64);
    metrics.insert("prompts/trained".into(), harvest.trained as f64);
}
