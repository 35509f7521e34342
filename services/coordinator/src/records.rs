//! Examples, dead letters and accounts of a run, as its queue holds them.

use joust_core::{ExampleSource, Outcome, RecordId, RunId, decode};
use joust_proto::{
    Error, Failure, Reason,
    coordinator::v1 as wire,
    parse::{choice, record_ids},
};
use joust_queue::{Queue, Topic};

/// Topics that dead letters can belong to.
const TOPICS: [&str; 4] = ["prompts", "rollouts", "pairs", "feedback"];

/// Says that the queue failed.
pub(crate) fn unreachable(error: joust_queue::Error) -> Failure {
    match error {
        joust_queue::Error::NotDead { .. } => Failure::new(Reason::UnknownName, error.to_string()),
        joust_queue::Error::Full { .. } => Failure::new(Reason::QueueFull, error.to_string()),
        joust_queue::Error::TopicName(_) => Failure::new(Reason::UnknownName, error.to_string()),
        error => Failure::new(Reason::StoreUnreachable, error.to_string()),
    }
}

/// Which examples are meant.
pub(crate) struct Filter {
    steps: std::ops::Range<u64>,
    source: Option<ExampleSource>,
}

impl TryFrom<wire::ExampleFilter> for Filter {
    type Error = Error;
    fn try_from(filter: wire::ExampleFilter) -> Result<Self, Error> {
        let source = match filter.source {
            0 => None,
            number => Some(choice::<joust_proto::common::v1::ExampleSource, _>("filter.source", number)?),
        };
        Ok(Self { steps: filter.first_step..filter.end_step.unwrap_or(u64::MAX), source })
    }
}

/// Reads the examples that the queue still holds: those of steps that no checkpoint covers, and those kept for replay; in the order in which
/// they were applied.
pub(crate) async fn examples(
    queue: &dyn Queue,
    run: &RunId,
    filter: &Filter,
) -> Result<Vec<wire::AppliedExample>, Failure> {
    let topic = Topic::pairs(run);
    let kept = queue.kept(&topic).await.map_err(unreachable)?;
    let assigned = queue.assigned(&topic, 0).await.map_err(unreachable)?;
    let assigned = assigned.into_iter().flat_map(|found| {
        let step = found.manifest.step;
        found.items.into_iter().map(move |item| (step, item))
    });
    let mut found = Vec::new();
    for (step, item) in kept.into_iter().chain(assigned).filter(|(step, _)| filter.steps.contains(step)) {
        let outcome: Outcome =
            decode("outcome", &item.body).map_err(|error| Failure::new(Reason::Damaged, error.to_string()))?;
        let wanted =
            outcome.examples.into_iter().filter(|example| filter.source.is_none_or(|source| source == example.source));
        found.extend(wanted.map(|example| wire::AppliedExample { example: Some(example.into()), step: Some(step) }));
    }
    Ok(found)
}

/// Returns the topics that a name means: one, or all.
pub(crate) fn topics(run: &RunId, name: &str) -> Result<Vec<Topic>, Failure> {
    let names: Vec<&str> = if name.is_empty() { TOPICS.to_vec() } else { vec![name] };
    if let Some(unknown) = names.iter().find(|name| !TOPICS.contains(name)) {
        let text = format!("there is no topic {unknown:?}; known are {}", TOPICS.join(", "));
        return Err(Failure::new(Reason::UnknownName, text));
    }
    names.into_iter().map(|name| Topic::new(run, name).map_err(unreachable)).collect()
}

/// Lists what was tried too often.
pub(crate) async fn dead(queue: &dyn Queue, topics: Vec<Topic>) -> Result<Vec<wire::DeadLetter>, Failure> {
    let mut found = Vec::new();
    for topic in topics {
        let letters = queue.dead(&topic).await.map_err(unreachable)?;
        found.extend(letters.into_iter().map(|letter| wire::DeadLetter {
            id: letter.item.id.as_bytes().to_vec(),
            topic: topic.name.to_string(),
            reason: letter.reason,
            deliveries: letter.deliveries,
            at: None,
        }));
    }
    Ok(found)
}

/// Gives dead letters back. One that is back already is left alone, so that a repeat is harmless.
pub(crate) async fn requeue(queue: &dyn Queue, topic: &Topic, ids: &[Vec<u8>]) -> Result<u64, Failure> {
    let ids: Vec<RecordId> = record_ids("ids", ids, 1..=joust_proto::limits::MAX_ITEMS)?;
    queue.requeue(topic, &ids).await.map_err(unreachable)?;
    Ok(ids.len() as u64)
}

/// Returns the accounts of all topics.
pub(crate) async fn stats(queue: &dyn Queue, run: &RunId) -> Result<Vec<wire::TopicStats>, Failure> {
    let stats = queue.stats(run).await.map_err(unreachable)?;
    let one = |(name, topic): (joust_queue::TopicName, joust_queue::TopicStats)| wire::TopicStats {
        topic: name.to_string(),
        put: topic.put,
        duplicates: topic.duplicates,
        waiting: topic.waiting,
        leased: topic.leased,
        assigned: topic.assigned,
        finished: topic.finished,
        dropped: topic.dropped.into_iter().collect(),
        dead: topic.dead.into_iter().collect(),
        expired: topic.expired,
        retried: topic.retried,
        capacity: topic.capacity,
    };
    Ok(stats.topics.into_iter().map(one).collect())
}
