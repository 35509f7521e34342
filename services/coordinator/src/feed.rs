//! Puts a run's prompts on the queue, by position, never more than the staleness bound allows (R5, R8).

use std::{ops::Range, sync::Arc, time::Duration};

use joust_core::{Outcome, Progress, PromptTask, Release, RunId, Shutdown, encode};
use joust_queue::{Item, Queue, Topic};
use joust_telemetry::{Work, instruments};
use tokio::sync::watch;

use crate::Result;

/// How long a full topic may hold the coordinator up.
const ROOM: Duration = Duration::from_secs(600);

/// Which run's prompts are put, and when.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The run.
    pub run: RunId,
    /// When prompts may be put.
    pub release: Release,
}

/// Where the prompts come from: the task at each position of the stream.
pub trait PromptSource: Send + Sync {
    /// Returns the task at this position.
    fn task(&self, position: u64) -> PromptTask;

    /// Returns the outcome that is given for this position, which then has no prompt to answer.
    ///
    /// # Errors
    /// A given example that cannot be read.
    fn given(&self, _position: u64) -> anyhow::Result<Option<Outcome>> {
        Ok(None)
    }
}

/// What feeding a run works with.
pub struct FeedDeps {
    /// The run's queue.
    pub queue: Arc<dyn Queue>,
    /// The run's prompts.
    pub prompts: Arc<dyn PromptSource>,
    /// How far the learner is; `None` while it recovers.
    pub progress: watch::Receiver<Option<Progress>>,
}

/// Puts prompts until all of the run are put or a stop is asked for.
///
/// Puts are idempotent, so it starts anew from the learner's position after a crash.
///
/// # Errors
/// [`crate::Error::Queue`] if the queue fails.
pub async fn feed(config: Feed, mut deps: FeedDeps, shutdown: Shutdown) -> Result<()> {
    let mut next = 0;
    loop {
        let progress = *deps.progress.borrow_and_update();
        let allowed = progress.map_or(0, |progress| config.release.allowed(progress));
        next = progress.map_or(next, |progress| config.release.first_position(progress).max(next));
        while next < allowed {
            let end = config.release.end_of_batch(next).min(allowed);
            put(&config.run, &deps, next..end).await?;
            tracing::debug!(from = next, to = end, "prompts put");
            next = end;
        }
        if next >= config.release.total_positions() {
            return Ok(());
        }
        tokio::select! {
            changed = deps.progress.changed() => if changed.is_err() { return Ok(()) },
            () = shutdown.wait() => return Ok(()),
        }
    }
}

/// Puts what stands at these positions: prompts, each at the root of a trace, and given outcomes where the learner takes them.
async fn put(run: &RunId, deps: &FeedDeps, positions: Range<u64>) -> Result<()> {
    let (mut prompts, mut outcomes) = (Vec::new(), Vec::new());
    for position in positions {
        let given = deps.prompts.given(position).map_err(|error| crate::Error::Given(format!("{error:#}")))?;
        match given {
            Some(outcome) => outcomes.push(Item { id: outcome.id, body: encode(&outcome), trace: None }),
            None => prompts.push(item(&deps.prompts.task(position), &Work::prompt(run.as_str(), position))),
        }
    }
    for (topic, items) in [(Topic::pairs(run), outcomes), (Topic::prompts(run), prompts)] {
        if items.is_empty() {
            continue;
        }
        let is_prompts = topic == Topic::prompts(run);
        let report = deps.queue.put_when_room(&topic, items, ROOM).await?;
        if is_prompts {
            instruments::prompts_put(run.as_str(), report.added);
        }
    }
    Ok(())
}

fn item(task: &PromptTask, work: &Work) -> Item {
    Item { id: task.id, body: encode(task), trace: work.traceparent() }
}
