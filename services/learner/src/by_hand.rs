//! What a script asks a learner for: checkpoints, and steps by hand, for which it puts examples and says when to train on which.
//!
//! Examples wait in the run's queue and a step is assigned there before it is trained, so that a crash loses nothing and applies nothing twice.

use std::time::Duration;

use joust_core::{Example, ModelSet, Outcome, RecordId, Shutdown, encode};
use joust_queue::{Consumer, Done, Item, Lease, Queue, StepManifest, Topic, unpack};
use joust_train::StepMetrics;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use crate::{
    Ended, Error, Result, State,
    plan::{harvest, manifest},
    session::Session,
};

/// Examples that are leased at once.
const HELD: usize = 4096;

/// A script's request, with the way of its answer.
#[derive(Debug)]
pub enum Asked {
    /// Train on these examples in this order, or on the oldest that wait if none is named.
    Step {
        /// Which.
        ids: Vec<RecordId>,
        /// Whether the policy is published after it.
        publish: bool,
        /// The way of the answer.
        answer: oneshot::Sender<Result<Stepped>>,
    },
    /// Write a checkpoint now.
    Save {
        /// The way of the answer.
        answer: oneshot::Sender<Result<Saved>>,
    },
}

/// Where a script's requests come from.
#[derive(Debug)]
pub struct Requests {
    /// The requests.
    pub asked: mpsc::Receiver<Asked>,
    /// Whether steps are trained when they are asked for; else the queue brings them.
    pub by_hand: bool,
}

/// Waits for the next request; for ever where none can come.
pub(crate) async fn next(requests: &mut Option<&mut mpsc::Receiver<Asked>>) -> Asked {
    if let Some(requests) = requests
        && let Some(asked) = requests.recv().await
    {
        return asked;
    }
    std::future::pending().await
}

/// A checkpoint that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub checkpoint: String,
    /// Optimizer steps that it covers.
    pub steps_done: u64,
}

/// A step that was trained by hand.
#[derive(Debug, Clone)]
pub struct Stepped {
    /// Which, from 0.
    pub step: u64,
    /// What it told.
    pub metrics: StepMetrics,
    /// Examples that were applied.
    pub examples: u64,
    /// What is published now.
    pub models: ModelSet,
}

/// Puts examples where [`Asked::Step`] finds them; an id that is known changes nothing.
///
/// # Returns
/// Examples that are new, and those whose id was known.
///
/// # Errors
/// As [`Queue::put`].
pub async fn put_examples(queue: &dyn Queue, topic: &Topic, examples: Vec<Example>) -> Result<(u64, u64)> {
    let outcome = |example: Example| {
        let outcome = Outcome::by_hand(example);
        Item { id: outcome.id, body: encode(&outcome), trace: None }
    };
    let report = queue.put(topic, examples.into_iter().map(outcome).collect()).await?;
    Ok((report.added, report.duplicates))
}

/// Examples that wait in this process's hands.
pub(crate) struct Held {
    consumer: Consumer,
    examples: Vec<(Lease, Outcome)>,
}

impl Held {
    /// Leases what waits.
    async fn fill(&mut self, queue: &dyn Queue, topic: &Topic) -> Result<()> {
        while self.examples.len() < HELD {
            let leased = queue.take(topic, &self.consumer, HELD - self.examples.len(), Duration::ZERO).await?;
            if leased.is_empty() {
                break;
            }
            let (outcomes, refused) = unpack::<Outcome>("outcome", leased);
            if !refused.is_empty() {
                queue.commit(refused, Vec::new()).await?;
            }
            for (lease, outcome, _) in outcomes {
                // The same record again is held with its new lease: the one before ran out.
                match self.examples.iter_mut().find(|held| held.1.id == outcome.id) {
                    Some(held) => held.0 = lease,
                    None => self.examples.push((lease, outcome)),
                }
            }
        }
        Ok(())
    }

    /// Takes what is named out, in that order.
    fn choose(&mut self, ids: &[RecordId], most: usize) -> Result<Vec<(Lease, Outcome)>> {
        if ids.is_empty() {
            let count = most.min(self.examples.len());
            return Ok(self.examples.drain(..count).collect());
        }
        let is = |held: &(Lease, Outcome), id: &RecordId| held.1.examples.iter().any(|example| example.id == *id);
        if let Some(id) = ids.iter().find(|id| !self.examples.iter().any(|held| is(held, id))) {
            return Err(Error::NotWaiting { id: id.to_string() });
        }
        let place = |id: &RecordId| self.examples.iter().position(|held| is(held, id));
        let mut places: Vec<usize> = ids.iter().filter_map(place).collect();
        let chosen: Vec<(Lease, Outcome)> = places.iter().map(|place| self.examples[*place].clone()).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().rev().for_each(|place| drop(self.examples.remove(place)));
        Ok(chosen)
    }

    async fn renew(&mut self, queue: &dyn Queue) -> Result<()> {
        let leases: Vec<Lease> = self.examples.iter().map(|(lease, _)| lease.clone()).collect();
        match queue.renew(&leases).await {
            Err(error @ joust_queue::Error::LeaseLost { .. }) => {
                // A step took longer than a lease. What is still held comes back with what was lost.
                tracing::warn!(%error, "examples are gathered anew");
                self.examples.clear();
                Ok(())
            }
            renewed => Ok(renewed?),
        }
    }

    async fn give_back(&mut self, queue: &dyn Queue) -> Result<()> {
        let leases: Vec<Lease> = self.examples.drain(..).map(|(lease, _)| lease).collect();
        Ok(queue.release(&leases).await?)
    }
}

impl Session<'_> {
    /// Replays what was assigned, then trains the steps that are asked for until a stop is.
    pub(crate) async fn by_hand(
        mut self,
        requests: &mut mpsc::Receiver<Asked>,
        shutdown: &Shutdown,
    ) -> Result<(Ended, State)> {
        if let Some(ended) = self.recover_steps().await? {
            return self.end(ended).await;
        }
        self.tell_progress();
        let mut held = Held { consumer: Consumer::new("learner-0"), examples: Vec::new() };
        let queue = self.around.queue.clone();
        let mut renew = tokio::time::interval(queue.renew_every());
        loop {
            let asked = tokio::select! {
                asked = requests.recv() => asked,
                () = shutdown.wait() => None,
                _ = renew.tick() => {
                    held.renew(&*queue).await?;
                    continue;
                }
            };
            let (ids, publish, answer) = match asked {
                Some(Asked::Step { ids, publish, answer }) => (ids, publish, answer),
                Some(save) => {
                    self.answer(save).await?;
                    continue;
                }
                None => {
                    held.give_back(&*queue).await?;
                    return self.end(Ended::Stopped).await;
                }
            };
            match self.hand_step(&mut held, ids, publish).await {
                // Who asked may be gone; the step counts either way.
                Ok((stepped, ended)) => {
                    let _ = answer.send(Ok(stepped));
                    if let Some(ended) = ended {
                        held.give_back(&*queue).await?;
                        return self.end(ended).await;
                    }
                }
                Err(error @ (Error::NotWaiting { .. } | Error::NothingWaits)) => drop(answer.send(Err(error))),
                Err(error) => {
                    // Who asked may be gone; the error itself goes on below.
                    let _ = answer.send(Err(Error::Worker(error.to_string())));
                    return Err(error);
                }
            }
        }
    }

    /// Answers what a script asks of a run whose steps the queue brings.
    pub(crate) async fn answer(&mut self, asked: Asked) -> Result<()> {
        match asked {
            // Nobody listening means nobody needs it, here and below.
            Asked::Step { answer, .. } => drop(answer.send(Err(Error::NothingWaits))),
            Asked::Save { answer } => match self.save().await {
                Err(error @ Error::WithinIteration { .. }) => drop(answer.send(Err(error))),
                saved => drop(answer.send(Ok(saved?))),
            },
        }
        Ok(())
    }

    /// Writes a checkpoint of now, if there is none, and waits until it is durable.
    async fn save(&mut self) -> Result<Saved> {
        let step = self.state.step;
        if !self.config.ends_iteration(step) {
            return Err(Error::WithinIteration { step, steps: self.config.iteration_steps });
        }
        self.checkpoint().await?;
        self.seal().await?;
        Ok(Saved { checkpoint: format!("checkpoint-{step}"), steps_done: step })
    }

    async fn hand_step(
        &mut self,
        held: &mut Held,
        ids: Vec<RecordId>,
        publish: bool,
    ) -> Result<(Stepped, Option<Ended>)> {
        let queue = self.around.queue.clone();
        held.renew(&*queue).await?;
        held.fill(&*queue, &self.topic).await?;
        let chosen = held.choose(&ids, self.config.prompts_per_step as usize)?;
        if chosen.is_empty() {
            return Err(Error::NothingWaits);
        }
        let step = self.state.step;
        let (leases, outcomes): (Vec<Lease>, Vec<Outcome>) = chosen.into_iter().unzip();
        let harvest = harvest(&outcomes, self.config.version(step), &self.config);
        let examples = harvest.examples.len() as u64;
        if examples == 0 {
            let stale = leases.into_iter().map(|lease| (lease, Done::Dropped("stale".into()))).collect();
            queue.commit(stale, Vec::new()).await?;
            return Err(Error::NothingWaits);
        }
        let plan = manifest(&self.config, step, &harvest.examples, &self.pool)?;
        queue.assign(&self.topic, leases, StepManifest { step, body: encode(&plan) }, self.fence).await?;
        self.quiet = !publish;
        let span = joust_telemetry::step(self.config.run.as_str(), step, []);
        let ended = self.train(plan, harvest, &outcomes, false).instrument(span).await?;
        self.quiet = false;
        self.tell_progress();
        let stepped = Stepped { step, metrics: self.told.clone(), examples, models: self.set.clone() };
        Ok((stepped, ended))
    }
}
