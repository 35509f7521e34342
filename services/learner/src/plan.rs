//! Planning a step: which examples, in which order, in which micro-batches. Pure.

use std::collections::BTreeMap;

use joust_core::{DropReason, Example, Manifest, Outcome, RecordId, SCHEMA};
use joust_pairs::{
    replay::{Entry, choose, margin_of, replay_count},
    weight_of,
};

use crate::{Config, Result};

/// Applied examples that may be trained again, oldest first, at most `capacity`.
#[derive(Debug, Default)]
pub(crate) struct ReplayPool {
    capacity: usize,
    examples: std::collections::VecDeque<(u64, Example)>,
}

/// What the outcomes of a step amount to.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    /// Fresh examples by (position, index).
    pub(crate) examples: Vec<Example>,
    /// Prompts with at least one example.
    pub(crate) trained: u64,
    /// Prompts without one, by reason.
    pub(crate) dropped: BTreeMap<DropReason, u64>,
}

impl ReplayPool {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Enters examples that `step` applied for the first time.
    pub(crate) fn enter(&mut self, step: u64, examples: impl IntoIterator<Item = Example>) {
        if self.capacity == 0 {
            return;
        }
        self.examples.extend(examples.into_iter().map(|example| (step, example)));
        let excess = self.examples.len().saturating_sub(self.capacity);
        self.examples.drain(..excess);
    }

    /// Returns the step of the oldest example.
    pub(crate) fn oldest_step(&self) -> Option<u64> {
        self.examples.front().map(|(step, _)| *step)
    }

    pub(crate) fn get(&self, id: &RecordId) -> Option<&Example> {
        self.examples.iter().map(|(_, example)| example).find(|example| example.id == *id)
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |(step, example): &(u64, Example)| Entry {
            id: example.id,
            applied_step: *step,
            margin: margin_of(example),
        };
        self.examples.iter().map(entry).collect()
    }
}

/// Takes the examples out of a step's outcomes, weighed and without those that are too stale: in prompt order, then those that no prompt gave, in the order
/// that they came in.
pub(crate) fn harvest(outcomes: &[Outcome], version: u64, config: &Config) -> Harvest {
    let mut ordered: Vec<&Outcome> = outcomes.iter().collect();
    ordered.sort_by_key(|outcome| outcome.position);
    let mut harvest = Harvest::default();
    for outcome in ordered {
        let fresh = |example: &&Example| example.age(version) <= config.max_staleness;
        let weighed = |mut example: Example| {
            example.weight *= weight_of(&config.weights, &example, example.age(version));
            example
        };
        let kept: Vec<Example> = outcome.examples.iter().filter(fresh).cloned().map(weighed).collect();
        if kept.is_empty() {
            let reason = outcome.dropped.unwrap_or(DropReason::Stale);
            *harvest.dropped.entry(reason).or_default() += 1;
        } else {
            harvest.trained += u64::from(!outcome.is_of_people());
            harvest.examples.extend(kept);
        }
    }
    harvest
}

/// Plans a step over fresh and replayed examples.
///
/// # Errors
/// [`crate::Error::Pairs`] for a replay ratio out of range.
pub(crate) fn manifest(config: &Config, step: u64, fresh: &[Example], pool: &ReplayPool) -> Result<Manifest> {
    let count = replay_count(fresh.len(), config.replay.ratio)?;
    let replayed = choose(&pool.entries(), config.replay.order, count, (config.seed, step));
    let ids: Vec<RecordId> = fresh.iter().map(|example| example.id).chain(replayed.iter().copied()).collect();
    Ok(Manifest {
        schema: SCHEMA,
        step,
        epoch: 0,
        micro_batches: ids.chunks(config.micro_batch.max(1)).map(<[RecordId]>::to_vec).collect(),
        replayed,
        reference_version: if config.reference.moves() { config.version(step) } else { 0 },
        seed: config.seed,
        settings_hash: config.settings_hash.clone(),
    })
}
