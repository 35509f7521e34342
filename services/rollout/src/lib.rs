//! Rollout worker: leases prompts, samples answers, commits rollouts.
//!
//! It judges and trains nothing. Work done twice gives the same ids, so a crash between sampling and commit loses only time.

mod annotate;
mod answer;
mod error;
mod observe;
mod revise;
pub mod server;
mod under_way;

use std::{sync::Arc, time::Duration};

use joust_core::{Player, PromptTask, Purpose, RecordId, Release, Rollout, RunId, SCHEMA, Shutdown, encode, failpoint};
use joust_data::Tokenizer;
use joust_engine::{Engine, ModelStore, Published, SamplingParams};
use joust_queue::{Consumer, Done, Item, Lease, Leased, Queue, Topic, holding, unpack};
use joust_telemetry::Work;

pub use annotate::{Annotate, AnnotateBy};
pub use answer::{Ask, Models, answer};
pub use error::{Error, Result};
pub use revise::Revision;
pub use under_way::UnderWay;

/// How long one wait for prompts lasts before the worker looks for a stop.
const POLL: Duration = Duration::from_millis(500);

/// How long a full topic downstream may hold this worker up.
const ROOM: Duration = Duration::from_secs(600);

/// Settings of one run's rollout worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// The run.
    pub run: RunId,
    /// Name of the worker.
    pub worker: String,
    /// Who gives each of a prompt's answers.
    pub players: Vec<Player>,
    /// Weight of the reference in the player `mixture`, in [0, 1].
    pub mixture_coef: f64,
    /// Which answers of a prompt are judged; `None` for all.
    pub annotate: Option<Annotate>,
    /// What comes before the prompts of the player `styled`.
    pub style: String,
    /// How the player `revised` answers, where it plays.
    pub revision: Option<Revision>,
    /// How answers are drawn.
    pub params: SamplingParams,
    /// Seed of the run.
    pub seed: u64,
    /// Prompts leased together: those of a step, which were put together, so that a batch is a whole step (R6).
    pub batch: usize,
    /// The staleness rule.
    pub release: Release,
}

/// What a rollout worker works with.
pub struct Deps {
    /// The run's queue.
    pub queue: Arc<dyn Queue>,
    /// The sampling engine.
    pub engine: Engine,
    /// Where weights are published.
    pub models: ModelStore,
    /// The policy's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Counts the answers that are being sampled.
    pub under_way: UnderWay,
}

/// Answers prompts until a stop is asked for.
///
/// # Errors
/// [`Error`] if the queue or the engine fails; leases then run out and the prompts are answered again.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<()> {
    let topic = Topic::prompts(&config.run);
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
                    tracing::warn!(error = %lost, "prompts were lost to another worker");
                }
                done => done?,
            },
            // What was leased is answered anew by the next process: the same ids, the same draws.
            () = shutdown.wait() => break,
        }
    }
    Ok(())
}

async fn serve(config: &Config, deps: &Deps, leased: Vec<Leased>) -> Result<()> {
    let (known, refused) = unpack::<PromptTask>("prompt_task", leased);
    if !refused.is_empty() {
        deps.queue.commit(refused, Vec::new()).await?;
    }
    let (leases, tasks, traces): (Vec<Lease>, Vec<PromptTask>, Vec<Option<String>>) = known.into_iter().collect();
    if tasks.is_empty() {
        return Ok(());
    }
    let works: Vec<Work> = traces.iter().map(|trace| Work::rollout(config.run.as_str(), trace.as_deref())).collect();
    let rollouts = holding(&*deps.queue, &leases, answered(config, deps, &tasks)).await??;
    let topic = Topic::rollouts(&config.run);
    rollouts.iter().zip(&works).for_each(|(rollout, work)| observe::rollout(config.run.as_str(), rollout, work));
    let next = rollouts.iter().zip(&works).map(|(rollout, work)| (topic.clone(), item(rollout, work))).collect();
    let done = leases.into_iter().map(|lease| (lease, Done::Moved)).collect();
    failpoint::pass("rollout_before_commit");
    deps.queue.commit_when_room(done, next, ROOM).await?;
    failpoint::pass("rollout_after_commit");
    Ok(())
}

/// Samples the answers to prompts.
async fn answered(config: &Config, deps: &Deps, tasks: &[PromptTask]) -> Result<Vec<Rollout>> {
    let newest = tasks.iter().map(|task| task.position).max().unwrap_or_default();
    let published = fresh_enough(config, deps, newest).await?;
    let (policy, reference) = (&published.policy, &published.reference);
    let models = Models {
        policy,
        reference,
        ema: published.ema.as_ref(),
        past: published.past.as_ref(),
        mixture_coef: config.mixture_coef,
    };
    let ask = Ask {
        params: &config.params,
        seed: config.seed,
        players: &config.players,
        style: &config.style,
        revision: config.revision.as_ref(),
    };
    let _counted = deps.under_way.count(tasks.len() * config.players.len());
    let mut rollouts = answer(&deps.engine, &deps.tokenizer, models, tasks, &ask).await?;
    if let Some(annotate) = config.annotate {
        annotate.choose(&deps.engine, reference, &mut rollouts).await?;
    }
    Ok(rollouts)
}

/// Waits until the published policy is new enough for the prompt at `position` (R5).
async fn fresh_enough(config: &Config, deps: &Deps, position: u64) -> Result<Published> {
    let oldest = config.release.oldest_version(position);
    let mut watch = deps.models.watch();
    let published = watch.wait_for(|published| published.set.policy.version >= oldest).await;
    Ok(published.map_err(|_| Error::LearnerGone)?.clone())
}

/// Builds the record of one answered prompt.
pub(crate) fn rollout_of(task: &PromptTask, prompt_ids: Vec<u32>, completions: Vec<joust_core::Completion>) -> Rollout {
    debug_assert!(task.purpose != Purpose::Train || !completions.is_empty());
    let versions: Vec<u8> = completions.iter().flat_map(|c| c.model.version.to_le_bytes()).collect();
    let id = RecordId::derive(&[b"rollout", task.id.as_bytes(), &versions]);
    Rollout { schema: SCHEMA, id, task: task.clone(), prompt_ids, completions }
}

fn item(rollout: &Rollout, work: &Work) -> Item {
    Item { id: rollout.id, body: encode(rollout), trace: work.traceparent() }
}
