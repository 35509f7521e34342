//! Gathering the outcomes of a step: all of its prompts, whatever the order of their arrival (R8), and what people preferred meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use joust_core::{DropReason, Outcome, PromptTask, RecordId, Rollout, SCHEMA, Shutdown, decode, encode};
use joust_queue::{Consumer, DeadLetter, Done, Item, Lease, Queue, Topic, Unpacked, unpack};
use tokio::time::Instant;

use crate::{Error, Result};

/// How long one wait for outcomes lasts before leases are looked after.
const POLL: Duration = Duration::from_millis(500);
/// After so many empty waits the dead letters are looked at.
const LOOK_FOR_DEAD: u32 = 20;

/// Outcomes that are leased and wait for the rest of their step.
pub(crate) struct Collector {
    queue: Arc<dyn Queue>,
    topic: Topic,
    consumer: Consumer,
    held: BTreeMap<u64, Unpacked<Outcome>>,
    /// Preferences of people, in the order in which they came.
    of_people: Vec<Unpacked<Outcome>>,
    /// Those that were moved to the topic and are not taken yet.
    awaited: BTreeSet<RecordId>,
    renewed: Instant,
}

impl Collector {
    pub(crate) fn new(queue: Arc<dyn Queue>, topic: Topic) -> Self {
        let consumer = Consumer::new("learner-0");
        let (held, of_people, awaited) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        Self { queue, topic, consumer, held, of_people, awaited, renewed: Instant::now() }
    }

    /// Waits until every position of `range` has an outcome, and returns leases, outcomes and trace contexts in prompt order, then what people
    /// preferred: what waited when the step began, at most as many as the step has prompts. `None` when a stop was asked for first.
    pub(crate) async fn step(
        &mut self,
        range: std::ops::Range<u64>,
        shutdown: &Shutdown,
    ) -> Result<Option<Vec<Unpacked<Outcome>>>> {
        let mut idle = 0u32;
        // What publishing, evaluating or a start of ranks took may have been longer than a lease.
        self.renew().await?;
        let prompts = (range.end - range.start) as usize;
        self.fetch_feedback(prompts.saturating_sub(self.of_people.len() + self.awaited.len())).await?;
        while self.held.range(range.clone()).count() < prompts || !self.awaited.is_empty() {
            let leased = tokio::select! {
                leased = self.queue.take(&self.topic, &self.consumer, 64, POLL) => leased?,
                () = shutdown.wait() => return Ok(None),
            };
            idle = if leased.is_empty() { idle + 1 } else { 0 };
            if idle > 0 && idle.is_multiple_of(LOOK_FOR_DEAD) {
                self.settle_dead_letters().await?;
                // What the topic knew before does not come again.
                self.awaited.clear();
            }
            let (outcomes, mut finished) = unpack::<Outcome>("outcome", leased);
            for (lease, outcome, trace) in outcomes {
                if outcome.is_of_people() {
                    self.awaited.remove(&outcome.id);
                    self.of_people.retain(|(_, held, _)| held.id != outcome.id);
                    self.of_people.push((lease, outcome, trace));
                    continue;
                }
                // The same record again is held with its new lease: the one before ran out.
                let other = self.held.get(&outcome.position).is_some_and(|(_, held, _)| held.id != outcome.id);
                if outcome.position < range.start || other {
                    // A dead letter that was put back after its prompt had been counted as dropped.
                    finished.push((lease, Done::Dropped("late".into())));
                } else {
                    self.held.insert(outcome.position, (lease, outcome, trace));
                }
            }
            if !finished.is_empty() {
                self.queue.commit(finished, Vec::new()).await?;
            }
            self.renew().await?;
        }
        let rest = self.held.split_off(&range.end);
        let step = std::mem::replace(&mut self.held, rest);
        let joining = self.of_people.drain(..prompts.min(self.of_people.len()));
        Ok(Some(step.into_values().chain(joining).collect()))
    }

    /// Moves preferences of people to the outcomes, where a step is assigned from; where there is no room they wait on.
    async fn fetch_feedback(&mut self, most: usize) -> Result<()> {
        if most == 0 {
            return Ok(());
        }
        let topic = Topic::feedback(&self.topic.run);
        let leased = self.queue.take(&topic, &self.consumer, most, Duration::ZERO).await?;
        if leased.is_empty() {
            return Ok(());
        }
        let items: BTreeMap<RecordId, Item> = leased.iter().map(|found| (found.item.id, found.item.clone())).collect();
        let (outcomes, mut done) = unpack::<Outcome>("outcome", leased);
        let leases: Vec<Lease> = outcomes.iter().map(|(lease, ..)| lease.clone()).collect();
        done.extend(leases.iter().map(|lease| (lease.clone(), Done::Moved)));
        let next = leases.iter().map(|lease| (self.topic.clone(), items[&lease.id].clone())).collect();
        match self.queue.commit(done, next).await {
            Err(joust_queue::Error::Full { .. }) => match self.queue.release(&leases).await {
                Err(joust_queue::Error::LeaseLost { .. }) => Ok(()),
                released => Ok(released?),
            },
            // This process stood still for longer than a lease: they come again.
            Err(joust_queue::Error::LeaseLost { .. }) => Ok(()),
            committed => {
                committed?;
                self.awaited.extend(leases.iter().map(|lease| lease.id));
                Ok(())
            }
        }
    }

    /// Gives each prompt or rollout that was given up an outcome that counts it as dropped, so that its step can be completed.
    async fn settle_dead_letters(&self) -> Result<()> {
        let run = &self.topic.run;
        let mut outcomes = Vec::new();
        for dead in self.queue.dead(&Topic::prompts(run)).await? {
            let task = decode::<PromptTask>("prompt_task", &dead.item.body);
            outcomes.push(given_up(&dead, task.map_err(|_| lost(Topic::prompts(run), &dead))?));
        }
        for dead in self.queue.dead(&Topic::rollouts(run)).await? {
            let rollout = decode::<Rollout>("rollout", &dead.item.body);
            outcomes.push(given_up(&dead, rollout.map_err(|_| lost(Topic::rollouts(run), &dead))?.task));
        }
        if let Some(dead) = self.queue.dead(&self.topic).await?.first() {
            return Err(lost(self.topic.clone(), dead));
        }
        let put = self.queue.put(&self.topic, outcomes).await?;
        if put.added > 0 {
            tracing::warn!(prompts = put.added, "prompts were given up by their workers and are counted as dropped");
        }
        Ok(())
    }

    /// Keeps what is held alive while a step trains.
    pub(crate) async fn renew(&mut self) -> Result<()> {
        if self.renewed.elapsed() < self.queue.renew_every() || (self.held.is_empty() && self.of_people.is_empty()) {
            return Ok(());
        }
        let leases: Vec<Lease> = self.held.values().chain(&self.of_people).map(|(lease, ..)| lease.clone()).collect();
        self.renewed = Instant::now();
        match self.queue.renew(&leases).await {
            Err(error @ joust_queue::Error::LeaseLost { .. }) => {
                // This process stood still for longer than a lease. What it still holds comes back with what it lost.
                tracing::warn!(%error, "outcomes are gathered anew");
                self.held.clear();
                self.of_people.clear();
                Ok(())
            }
            renewed => Ok(renewed?),
        }
    }
}

/// Builds the outcome of a prompt that was given up; its id is the same however often it is built.
fn given_up(dead: &DeadLetter, task: PromptTask) -> Item {
    tracing::warn!(id = %dead.item.id, position = task.position, reason = dead.reason, "given up");
    let id = RecordId::derive(&[b"outcome", task.id.as_bytes(), b"dead letter"]);
    let outcome = Outcome {
        schema: SCHEMA,
        id,
        position: task.position,
        purpose: task.purpose,
        examples: Vec::new(),
        dropped: Some(DropReason::DeadLetter),
        left_out: Vec::new(),
        scores: Vec::new(),
        eos_share: 0.0,
        mean_tokens: 0.0,
    };
    Item { id, body: encode(&outcome), trace: dead.item.trace.clone() }
}

/// Names a dead letter that does not tell which prompt it belongs to.
fn lost(topic: Topic, dead: &DeadLetter) -> Error {
    Error::DeadLetter { topic: topic.to_string(), id: dead.item.id.to_string(), reason: dead.reason.clone() }
}

#[cfg(test)]
mod tests {
    use joust_core::{Example, ExampleSource, Prompt, Purpose, RunId, Target};
    use joust_queue::{Settings, StepManifest, open_memory};

    use super::*;

    fn task(position: u64) -> PromptTask {
        let prompt = Prompt::Text("once".into());
        let id = RecordId::derive(&[b"task", &position.to_le_bytes()]);
        PromptTask { schema: SCHEMA, id, position, epoch: 0, row: position, purpose: Purpose::Train, prompt }
    }

    fn outcome(position: u64, name: &[u8]) -> Item {
        let id = RecordId::derive(&[name, &position.to_le_bytes()]);
        let dead =
            DeadLetter { item: Item { id, body: Vec::new(), trace: None }, reason: String::new(), deliveries: 1 };
        let mut outcome: Outcome = decode("outcome", &given_up(&dead, task(position)).body).expect("an outcome");
        (outcome.id, outcome.dropped) = (id, Some(DropReason::Tie));
        Item { id, body: encode(&outcome), trace: None }
    }

    /// A queue in which one record of `topic` was given up.
    async fn queue_with_dead(topic: &Topic, item: Item) -> Arc<dyn Queue> {
        let queue = open_memory(Settings { max_deliveries: 1, ..Settings::default() }).expect("a queue");
        queue.put(topic, vec![item]).await.expect("put");
        let leased = queue.take(topic, &Consumer::new("w"), 1, Duration::ZERO).await.expect("taken");
        let done = leased.into_iter().map(|leased| (leased.lease, Done::Retry("broken".into()))).collect();
        queue.commit(done, Vec::new()).await.expect("committed");
        assert_eq!(queue.dead(topic).await.expect("dead").len(), 1);
        queue
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_that_was_given_up_is_counted_and_the_step_goes_on() {
        let run = RunId::new("r").expect("a name");
        let (prompts, pairs) = (Topic::prompts(&run), Topic::pairs(&run));
        let dead = Item { id: task(1).id, body: encode(&task(1)), trace: None };
        let queue = queue_with_dead(&prompts, dead).await;
        queue.put(&pairs, vec![outcome(0, b"a"), outcome(2, b"a")]).await.expect("put");
        let mut collector = Collector::new(queue.clone(), pairs.clone());
        let step = collector.step(0..3, &Shutdown::default()).await.expect("no error").expect("no stop");
        let dropped: Vec<_> = step.iter().map(|(_, outcome, _)| outcome.dropped).collect();
        assert_eq!(dropped, [Some(DropReason::Tie), Some(DropReason::DeadLetter), Some(DropReason::Tie)]);
        // Put back later, the prompt gets a second outcome, which is dropped as late.
        queue.put(&pairs, vec![outcome(1, b"b"), outcome(3, b"a")]).await.expect("put");
        let step = collector.step(3..4, &Shutdown::default()).await.expect("no error").expect("no stop");
        assert_eq!(step.len(), 1);
        let stats = queue.stats(&run).await.expect("stats");
        assert_eq!(stats.topics[&pairs.name].dropped.get("late"), Some(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_for_longer_than_its_lease_is_gathered_again() {
        let run = RunId::new("r").expect("a name");
        let pairs = Topic::pairs(&run);
        let settings = Settings { lease: Duration::from_secs(6), ..Settings::default() };
        let queue = open_memory(settings).expect("a queue");
        let (mut collector, stop) = (Collector::new(queue.clone(), pairs.clone()), Shutdown::default());
        queue.put(&pairs, vec![outcome(0, b"a"), outcome(1, b"a")]).await.expect("put");
        let gathering = tokio::time::timeout(Duration::from_secs(1), collector.step(0..3, &stop));
        assert!(gathering.await.is_err(), "one is missing");
        tokio::time::advance(Duration::from_secs(7)).await; // a publish that takes longer than a lease
        queue.put(&pairs, vec![outcome(2, b"a")]).await.expect("put");
        let step = collector.step(0..3, &stop).await.expect("no error").expect("no stop");
        let leases: Vec<Lease> = step.into_iter().map(|(lease, ..)| lease).collect();
        let fence = queue.fence(&pairs).await.expect("a fence");
        let manifest = StepManifest { step: 0, body: Vec::new() };
        assert_eq!(leases.len(), 3);
        queue.assign(&pairs, leases, manifest, fence).await.expect("the leases hold");
        assert!(queue.stats(&run).await.expect("stats").topics[&pairs.name].dropped.is_empty());
    }

    fn preference(number: u8) -> Item {
        let example = Example {
            id: RecordId::derive(&[b"preference", &[number]]),
            prompt_ids: vec![1],
            answers: Vec::new(),
            target: Target::Pair { p: 1.0, win_rates: None },
            rationale: None,
            weight: 1.0,
            policy_version: 0,
            source: ExampleSource::Human,
            judge_hash: String::new(),
        };
        let outcome = Outcome::by_hand(example);
        Item { id: outcome.id, body: encode(&outcome), trace: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_people_prefer_joins_steps_as_large_as_itself() {
        let run = RunId::new("r").expect("a name");
        let (pairs, feedback) = (Topic::pairs(&run), Topic::feedback(&run));
        let queue = open_memory(Settings::default()).expect("a queue");
        let (mut collector, stop) = (Collector::new(queue.clone(), pairs.clone()), Shutdown::default());
        let junk = Item { id: RecordId::derive(&[b"junk"]), body: b"junk".to_vec(), trace: None };
        let given: Vec<Item> = (0..5).map(preference).collect();
        queue.put(&feedback, [given.clone(), vec![junk]].concat()).await.expect("put");
        queue.put(&pairs, (0..6).map(|position| outcome(position, b"a")).collect()).await.expect("put");
        let fence = queue.fence(&pairs).await.expect("a fence");
        let mut joined = Vec::new();
        for step in 0..3 {
            let found = collector.step(step * 2..step * 2 + 2, &stop).await.expect("no error").expect("no stop");
            let (prompts, people): (Vec<_>, Vec<_>) = found.iter().partition(|(_, outcome, _)| !outcome.is_of_people());
            assert_eq!(prompts.iter().map(|(_, o, _)| o.position).collect::<Vec<_>>(), [step * 2, step * 2 + 1]);
            joined.push(people.iter().map(|(_, outcome, _)| outcome.id).collect::<Vec<_>>());
            let leases = found.into_iter().map(|(lease, ..)| lease).collect();
            queue.assign(&pairs, leases, StepManifest { step, body: Vec::new() }, fence).await.expect("assigned");
        }
        let ids: Vec<RecordId> = given.iter().map(|item| item.id).collect();
        assert_eq!(joined, [ids[..2].to_vec(), ids[2..4].to_vec(), ids[4..].to_vec()]);
        let stats = queue.stats(&run).await.expect("stats");
        assert_eq!((stats.topics[&feedback.name].finished, stats.topics[&pairs.name].assigned), (5, 11));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_topic_leaves_what_people_prefer_where_it_is() {
        let run = RunId::new("r").expect("a name");
        let (pairs, feedback) = (Topic::pairs(&run), Topic::feedback(&run));
        let settings = Settings { topic_capacity: [(pairs.name.clone(), 2)].into(), ..Settings::default() };
        let queue = open_memory(settings).expect("a queue");
        let mut collector = Collector::new(queue.clone(), pairs.clone());
        queue.put(&feedback, vec![preference(0)]).await.expect("put");
        queue.put(&pairs, vec![outcome(0, b"a"), outcome(1, b"a")]).await.expect("put");
        let found = collector.step(0..2, &Shutdown::default()).await.expect("no error").expect("no stop");
        assert_eq!(found.len(), 2);
        assert_eq!(queue.stats(&run).await.expect("stats").topics[&feedback.name].waiting, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_letter_that_names_no_prompt_is_an_error() {
        let run = RunId::new("r").expect("a name");
        let dead = Item { id: task(1).id, body: b"junk".to_vec(), trace: None };
        let queue = queue_with_dead(&Topic::rollouts(&run), dead).await;
        let mut collector = Collector::new(queue, Topic::pairs(&run));
        let error = collector.step(0..1, &Shutdown::default()).await.expect_err("an error");
        assert!(matches!(error, Error::DeadLetter { ref reason, .. } if reason == "broken"), "{error}");
    }
}
