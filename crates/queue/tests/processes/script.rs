//! A small run as a fixed list of operations: prompts become outcomes, outcomes steps, steps are retired.

use std::{ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use joust_core::{RecordId, RunId};
use joust_queue::{Consumer, Done, Fence, Item, Lease, Leased, Queue, StepManifest, Topic};

use crate::{item, number_of, open};

/// One operation, as both the queue and its model are asked for it.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Puts new prompts, and one that is known.
    Put,
    /// Takes prompts.
    TakePrompts(usize),
    /// Finishes the prompts in hand, each as [`fate`] says.
    Commit,
    /// Gives the prompts in hand back.
    Release,
    /// Takes outcomes.
    TakePairs(usize),
    /// Makes the outcomes in hand a step.
    Assign,
    /// Retires all steps but the last.
    Retire,
    /// Gives the dead prompts another life.
    Requeue,
}

/// The script, over and over.
const CYCLE: [Operation; 12] = [
    Operation::Put,
    Operation::TakePrompts(3),
    Operation::Commit,
    Operation::TakePairs(2),
    Operation::Assign,
    Operation::TakePrompts(1),
    Operation::Release,
    Operation::TakePrompts(2),
    Operation::Commit,
    Operation::Requeue,
    Operation::TakePairs(1),
    Operation::Retire,
];

/// Operations after which each was asked for with something to do.
pub const SCRIPT: u64 = 2 * CYCLE.len() as u64;

/// Returns the operation at a place of the script.
pub fn operation(place: u64) -> Operation {
    CYCLE[(place % CYCLE.len() as u64) as usize]
}

/// Returns the prompts that [`Operation::Put`] puts at a place; the first of them is known from the put before.
pub fn prompts_of(place: u64) -> RangeInclusive<u64> {
    let first = place / CYCLE.len() as u64 * 4;
    first.saturating_sub(1)..=first + 3
}

/// What becomes of a prompt in [`Operation::Commit`].
pub enum Fate {
    Moved,
    Tie,
    Retry,
}

pub fn fate(prompt: u64) -> Fate {
    match prompt {
        prompt if prompt % 5 == 1 => Fate::Retry,
        prompt if prompt % 7 == 3 => Fate::Tie,
        _ => Fate::Moved,
    }
}

pub fn run_id() -> RunId {
    RunId::new("processes").expect("a valid name")
}

/// One process of the run, which knows what it has in hand.
pub struct Session {
    queue: Arc<dyn Queue>,
    prompts: Topic,
    pairs: Topic,
    prompts_held: Vec<Leased>,
    pairs_held: Vec<Lease>,
    fence: Option<Fence>,
    next_step: u64,
}

impl Session {
    /// Opens the queue; `next_step` is known from before, as a learner knows it from its checkpoint.
    pub fn open(path: &Path, next_step: u64) -> Self {
        let (queue, run) = (open(path).expect("a queue"), run_id());
        let (prompts, pairs) = (Topic::prompts(&run), Topic::pairs(&run));
        Self { queue, prompts, pairs, prompts_held: Vec::new(), pairs_held: Vec::new(), fence: None, next_step }
    }

    /// Does what the script says at a place. A step needs a fence; the first time it is taken instead.
    pub async fn perform(&mut self, place: u64) {
        let operation = operation(place);
        if matches!(operation, Operation::Assign | Operation::Retire) && self.fence.is_none() {
            self.fence = Some(self.queue.fence(&self.pairs).await.expect("a fence"));
            return;
        }
        match operation {
            Operation::Put => {
                self.queue.put(&self.prompts, prompts_of(place).map(item).collect()).await.expect("a put");
            }
            Operation::TakePrompts(max) => {
                let taken = self.take(&self.prompts, max).await;
                self.prompts_held.extend(taken);
            }
            Operation::TakePairs(max) => {
                let taken = self.take(&self.pairs, max).await;
                self.pairs_held.extend(taken.into_iter().map(|leased| leased.lease));
            }
            Operation::Commit => self.commit().await,
            Operation::Release => {
                let leases: Vec<Lease> = self.prompts_held.drain(..).map(|leased| leased.lease).collect();
                self.queue.release(&leases).await.expect("a release");
            }
            Operation::Assign => self.assign().await,
            Operation::Retire => self.retire().await,
            Operation::Requeue => self.requeue().await,
        }
    }

    async fn take(&self, topic: &Topic, max: usize) -> Vec<Leased> {
        self.queue.take(topic, &Consumer::new("session"), max, Duration::ZERO).await.expect("a take")
    }

    async fn commit(&mut self) {
        let mut next: Vec<(Topic, Item)> = Vec::new();
        let mut done = Vec::new();
        for Leased { lease, item: prompt, .. } in self.prompts_held.drain(..) {
            let outcome = match fate(number_of(&prompt)) {
                Fate::Tie => Done::Dropped("tie".into()),
                Fate::Retry => Done::Retry("judge down".into()),
                Fate::Moved => {
                    next.push((self.pairs.clone(), item(number_of(&prompt))));
                    Done::Moved
                }
            };
            done.push((lease, outcome));
        }
        self.queue.commit(done, next).await.expect("a commit");
    }

    async fn assign(&mut self) {
        let fence = self.fence.expect("it was taken before");
        let plan = StepManifest { step: self.next_step, body: self.next_step.to_be_bytes().to_vec() };
        let leases = std::mem::take(&mut self.pairs_held);
        self.queue.assign(&self.pairs, leases, plan, fence).await.expect("an assignment");
        self.next_step += 1;
    }

    async fn retire(&mut self) {
        let fence = self.fence.expect("it was taken before");
        if let Some(through) = self.next_step.checked_sub(2) {
            self.queue.retire(&self.pairs, through, through, fence).await.expect("a retirement");
        }
    }

    async fn requeue(&mut self) {
        let dead = self.queue.dead(&self.prompts).await.expect("the dead letters");
        let ids: Vec<RecordId> = dead.into_iter().map(|letter| letter.item.id).collect();
        self.queue.requeue(&self.prompts, &ids).await.expect("a requeue");
    }
}
