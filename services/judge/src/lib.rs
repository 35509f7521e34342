//! Judge worker: leases rollouts, judges, pairs up, commits one outcome a prompt.
//!
//! A failed judgement becomes a counted reason, never a number (R3).

mod error;
pub mod server;

use std::{sync::Arc, time::Duration};

use joust_core::{DropReason, Judgement, Outcome, Rollout, RunId, Shutdown, encode, failpoint};
use joust_judges::{Ask, CallContext, Judge, JudgeItem};
use joust_pairs::{PairingRules, outcome_of};
use joust_queue::{Consumer, Done, Item, Lease, Leased, Queue, Topic, holding, unpack};
use joust_telemetry::{Work, instruments, names::attribute};
use tokio::{sync::mpsc, time::Instant};

pub use error::{Error, Result};

/// How long one wait for rollouts lasts before the worker looks for a stop.
const POLL: Duration = Duration::from_millis(500);

/// How long a full topic downstream may hold this worker up.
const ROOM: Duration = Duration::from_secs(600);

/// Settings of one run's judge worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// The run.
    pub run: RunId,
    /// Name of the worker.
    pub worker: String,
    /// What the judge is asked.
    pub ask: Ask,
    /// How answers are paired up.
    pub rules: PairingRules,
    /// Seed of the run.
    pub seed: u64,
    /// Rollouts judged together.
    pub batch: usize,
    /// Longest wait for one batch of judgements.
    pub timeout: Duration,
}

/// What a judge worker works with.
pub struct Deps {
    /// The run's queue.
    pub queue: Arc<dyn Queue>,
    /// The judge.
    pub judge: Arc<dyn Judge>,
    /// Takes each judged rollout, for the archive; bounded, so a slow disk pushes back.
    pub archive: Option<mpsc::Sender<Judged>>,
}

/// A rollout with what was said about it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Prompt and answers.
    pub rollout: Rollout,
    /// What the judge said.
    pub judgement: Judgement,
    /// What became of it.
    pub outcome: Outcome,
}

/// Judges rollouts until a stop is asked for.
///
/// # Errors
/// [`Error`] if the queue fails.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<()> {
    let topic = Topic::rollouts(&config.run);
    let consumer = Consumer::new(config.worker.clone());
    while !shutdown.is_triggered() {
        let leased = tokio::select! {
            leased = deps.queue.take(&topic, &consumer, config.batch, POLL) => leased?,
            () = shutdown.wait() => break,
        };
        if leased.is_empty() {
            continue;
        }
        tokio::select! {
            done = serve(&config, &deps, leased) => match done {
                // It was slower than its lease: someone else has them, and makes the same records of them.
                Err(Error::Queue(lost @ joust_queue::Error::LeaseLost { .. })) => {
                    tracing::warn!(error = %lost, "rollouts were lost to another worker");
                }
                done => done?,
            },
            () = shutdown.wait() => break,
        }
    }
    Ok(())
}

async fn serve(config: &Config, deps: &Deps, leased: Vec<Leased>) -> Result<()> {
    let (known, refused) = unpack::<Rollout>("rollout", leased);
    if !refused.is_empty() {
        deps.queue.commit(refused, Vec::new()).await?;
    }
    let (leases, rollouts, traces): (Vec<Lease>, Vec<Rollout>, Vec<Option<String>>) = known.into_iter().collect();
    if rollouts.is_empty() {
        return Ok(());
    }
    let works: Vec<Work> = traces.iter().map(|trace| Work::judge(config.run.as_str(), trace.as_deref())).collect();
    let items: Vec<JudgeItem> = rollouts.iter().map(|rollout| JudgeItem::of(rollout, config.ask)).collect();
    let call = CallContext::new(config.seed, Instant::now() + config.timeout);
    let call = CallContext { notes: config.rules.rationale.is_some(), ..call };
    let judgements = holding(&*deps.queue, &leases, deps.judge.judge(&items, &call)).await?;
    let outcomes: Vec<Outcome> = rollouts
        .iter()
        .zip(&judgements)
        .map(|(rollout, judgement)| outcome_of(rollout, judgement, &config.rules))
        .collect();
    let topic = Topic::pairs(&config.run);
    let pairs: Vec<Work> = outcomes.iter().zip(&works).map(|(outcome, work)| pair(outcome, work)).collect();
    let next = outcomes.iter().zip(&pairs).map(|(outcome, pair)| (topic.clone(), item(outcome, pair))).collect();
    let done = leases.into_iter().map(|lease| (lease, Done::Moved)).collect();
    judgements.iter().for_each(|judgement| instruments::judged(config.run.as_str(), judgement.status.name(), 1));
    failpoint::pass("judge_before_commit");
    if let Some(archive) = &deps.archive {
        for ((rollout, judgement), outcome) in rollouts.into_iter().zip(judgements).zip(&outcomes) {
            // The archive may have been closed by a stop; the outcome itself is in the queue either way.
            let _ = archive.send(Judged { rollout, judgement, outcome: outcome.clone() }).await;
        }
    }
    deps.queue.commit_when_room(done, next, ROOM).await?;
    outcomes.iter().for_each(|outcome| instruments::outcome_put(config.run.as_str(), what(outcome)));
    failpoint::pass("judge_after_commit");
    Ok(())
}

/// Names what became of a prompt: `put`, or why it has no examples.
fn what(outcome: &Outcome) -> &'static str {
    outcome.dropped.map_or("put", DropReason::name)
}

/// Begins to put an outcome, as a part of judging.
fn pair(outcome: &Outcome, judged: &Work) -> Work {
    judged.set(attribute::POSITION, outcome.position as i64);
    judged.pair(what(outcome)).with(attribute::EXAMPLES, outcome.examples.len() as i64)
}

fn item(outcome: &Outcome, pair: &Work) -> Item {
    Item { id: outcome.id, body: encode(outcome), trace: pair.traceparent() }
}
