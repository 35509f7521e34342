//! Gathering the outcomes of a step: all of its prompts, whatever the order of their arrival (R8).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use joust_core::{Outcome, Shutdown, decode};
use joust_queue::{Consumer, Lease, Leased, Queue, Topic};
use tokio::time::Instant;

use crate::{Error, Result};

/// How long one wait for outcomes lasts before leases are looked after.
const POLL: Duration = Duration::from_millis(500);
/// After so many empty waits the dead letters are looked at.
const LOOK_FOR_DEAD: u32 = 20;
/// Leases are renewed this often; the queue's lease time is several times as long.
const RENEW: Duration = Duration::from_secs(5);

/// Outcomes that are leased and wait for the rest of their step.
pub(crate) struct Collector {
    queue: Arc<dyn Queue>,
    topic: Topic,
    consumer: Consumer,
    held: BTreeMap<u64, (Lease, Outcome)>,
    renewed: Instant,
}

impl Collector {
    pub(crate) fn new(queue: Arc<dyn Queue>, topic: Topic) -> Self {
        let consumer = Consumer::new("learner-0");
        Self { queue, topic, consumer, held: BTreeMap::new(), renewed: Instant::now() }
    }

    /// Waits until every position of `range` has an outcome, and returns leases and outcomes in prompt order; `None` when a stop
    /// was asked for first.
    pub(crate) async fn step(
        &mut self,
        range: std::ops::Range<u64>,
        shutdown: &Shutdown,
    ) -> Result<Option<Vec<(Lease, Outcome)>>> {
        let mut idle = 0u32;
        while self.held.range(range.clone()).count() < (range.end - range.start) as usize {
            let leased = tokio::select! {
                leased = self.queue.take(&self.topic, &self.consumer, 64, POLL) => leased?,
                () = shutdown.wait() => return Ok(None),
            };
            idle = if leased.is_empty() { idle + 1 } else { 0 };
            if idle > 0 && idle.is_multiple_of(LOOK_FOR_DEAD) {
                self.refuse_dead_letters().await?;
            }
            for Leased { lease, item, .. } in leased {
                let outcome: Outcome = decode("outcome", &item.body)?;
                self.held.insert(outcome.position, (lease, outcome));
            }
            self.renew().await?;
        }
        let rest = self.held.split_off(&range.end);
        let step = std::mem::replace(&mut self.held, rest);
        Ok(Some(step.into_values().collect()))
    }

    /// A prompt or rollout that was given up will never have an outcome; waiting for it would be silent.
    async fn refuse_dead_letters(&self) -> Result<()> {
        let run = &self.topic.run;
        for topic in [Topic::prompts(run), Topic::rollouts(run), self.topic.clone()] {
            if let Some(dead) = self.queue.dead(&topic).await?.first() {
                return Err(Error::DeadLetter {
                    topic: topic.to_string(),
                    id: dead.item.id.to_string(),
                    reason: dead.reason.clone(),
                });
            }
        }
        Ok(())
    }

    /// Keeps what is held alive while a step trains.
    pub(crate) async fn renew(&mut self) -> Result<()> {
        if self.renewed.elapsed() < RENEW || self.held.is_empty() {
            return Ok(());
        }
        let leases: Vec<Lease> = self.held.values().map(|(lease, _)| lease.clone()).collect();
        self.queue.renew(&leases).await?;
        self.renewed = Instant::now();
        Ok(())
    }
}
