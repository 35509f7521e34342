//! Learner: assigns outcomes to steps, trains, checkpoints, publishes.
//!
//! Each planned application happens once (R2): the manifest of a step is durable before the step begins, the checkpoint says
//! how many steps it covers, and after a crash the manifests since then are replayed from the stored examples.

mod alarm;
mod by_hand;
mod collect;
mod error;
mod group;
mod learners;
mod ledger;
mod observe;
mod outlet;
mod plan;
mod publish;
mod rank;
pub mod server;
mod session;
mod worker;

use std::{path::PathBuf, sync::Arc};

use joust_core::{Progress, RunId, Shutdown};
use joust_engine::{ModelStore, Snapshot};
use joust_pairs::{Weight, replay::Order};
use joust_queue::{Queue, Topic};
use tokio::sync::watch;

use collect::Collector;
use session::Around;

pub use by_hand::{Asked, Requests, Saved, Stepped, put_examples};
pub use error::{Error, Result};
pub use group::{RankPlace, RankProcesses, serve_rank};
pub use learners::Learners;
pub use ledger::{Ledger, State};
pub use observe::{Evaluation, Observer, StepReport};
pub use outlet::{Header, Outlet, Part};
pub use rank::Rank;
pub use session::Ended;

/// Settings of one run's learner.
#[derive(Debug, Clone)]
pub struct Config {
    /// The run.
    pub run: RunId,
    /// Seed of the run.
    pub seed: u64,
    /// BLAKE3 of the resolved run file, hexadecimal.
    pub settings_hash: String,
    /// Prompts of a step.
    pub prompts_per_step: u64,
    /// Examples of a micro-batch.
    pub micro_batch: usize,
    /// Steps of the run.
    pub steps: u64,
    /// Passes over a step's examples.
    pub epochs: u64,
    /// Steps between publishes.
    pub iteration_steps: u64,
    /// What the policy is held to.
    pub reference: Reference,
    /// Largest staleness in policy versions.
    pub max_staleness: u64,
    /// Replayed share of a step's examples.
    pub replay: Replay,
    /// What each example's loss is multiplied by.
    pub weights: Vec<Weight>,
    /// Steps between measurements of what a step does to the policy, see [`joust_train::Trainer::diagnose`]; 0 never measures.
    pub diagnose_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints that stay.
    pub keep_checkpoints: usize,
    /// Folder of the checkpoints.
    pub checkpoints: PathBuf,
    /// Steps between evaluations; 0 never evaluates.
    pub eval_every: u64,
    /// When to stop before the last step.
    pub stop: StopRules,
}

/// What the policy is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The initial weights.
    Initial,
    /// The policy of the last iteration's end.
    Previous,
    /// The averaged policy of the last iteration's end.
    Average,
    /// Nothing: no reference log-probs are computed.
    None,
}

impl Reference {
    /// Returns whether it moves at the end of each iteration.
    pub fn moves(self) -> bool {
        matches!(self, Self::Previous | Self::Average)
    }
}

/// Mixing applied examples into later steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Replay {
    /// Share of a step's examples that are replayed, in [0, 1).
    pub ratio: f64,
    /// Applied examples that stay readable.
    pub capacity: usize,
    /// Which of them come first.
    pub order: Order,
}

/// Rules that end a run early.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StopRules {
    /// Largest mean `objective/kl` of a step, in nats; 0 never stops.
    pub max_kl: f64,
    /// Evaluations in a row without a better win rate; 0 never stops.
    pub patience: u64,
    /// Seconds of the run; 0 never stops.
    pub max_seconds: u64,
}

/// What the learner works with.
pub struct Deps {
    /// The run's queue.
    pub queue: Arc<dyn Queue>,
    /// Who trains, from the initial weights.
    pub learners: Learners,
    /// Snapshot of the same weights, for samplers.
    pub initial: Arc<Snapshot>,
    /// Where weights are published.
    pub models: ModelStore,
    /// Where weights wait for samplers in other processes; `None` where there are none.
    pub outlet: Option<Arc<Outlet>>,
    /// Where progress is told, once what a crash left is recovered.
    pub progress: watch::Sender<Option<Progress>>,
    /// Who is told about steps and asked for evaluations.
    pub observer: Box<dyn Observer>,
    /// What a script asks for; `None` where none can.
    pub requests: Option<Requests>,
}

/// Trains until the last step, a stop rule or a stop that was asked for; then checkpoints.
///
/// Ranks that are lost are started again, under a new generation, from the last checkpoint; the steps since are replayed from the queue. When
/// they are lost again before they trained a step, one fewer is started, down to the fewest that the run wants.
///
/// # Returns
/// Why it ended and the state at the end.
///
/// # Errors
/// [`Error`]; the last checkpoint and the queue are whole then.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(Ended, State)> {
    let Deps { queue, mut learners, initial, models, outlet, progress, mut observer, mut requests } = deps;
    let mut collector = Collector::new(queue.clone(), Topic::pairs(&config.run));
    let mut incarnation = 0;
    loop {
        let mut trained = 0;
        let running = learners.start(incarnation)?;
        let around = Around {
            queue: queue.clone(),
            initial: initial.clone(),
            models: models.clone(),
            outlet: outlet.clone(),
            progress: progress.clone(),
            observer: observer.as_mut(),
            collector: &mut collector,
            trained: &mut trained,
        };
        let session = session::Session::open(config.clone(), running, around, shutdown.clone());
        let ended = match session.await {
            Ok(session) => match &mut requests {
                Some(requests) if requests.by_hand => session.by_hand(&mut requests.asked, &shutdown).await,
                requests => session.run(requests.as_mut().map(|requests| &mut requests.asked)).await,
            },
            Err(error) => Err(error),
        };
        match ended {
            Err(Error::RankLost { rank, reason }) if incarnation < learners.restarts() => {
                tracing::warn!(
                    rank,
                    reason,
                    incarnation,
                    "a rank was lost; all are started again from the last checkpoint"
                );
                if incarnation > 0 && trained == 0 && learners.shrink() {
                    tracing::warn!(
                        rank,
                        "started again, the ranks did not get as far as one step; going on with one fewer"
                    );
                }
                incarnation += 1;
            }
            ended => return ended,
        }
    }
}
