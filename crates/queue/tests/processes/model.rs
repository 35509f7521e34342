//! What the script must have made of the queue, kept as plain lists, and what a queue file holds in the same words.

use std::{collections::BTreeMap, path::Path, time::Duration};

use joust_queue::{Consumer, Queue, Topic};

use crate::{
    number_of, open, run_to_end,
    script::{Fate, Operation, fate, operation, prompts_of, run_id},
    settings,
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Waiting,
    Leased,
    /// In a step, assigned or kept.
    InStep,
    Finished,
    Dropped,
    Dead,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u64,
    place: Place,
    deliveries: u32,
    crashes: u32,
}

/// One topic.
#[derive(Debug, Clone, Default)]
struct Line {
    entries: Vec<Entry>,
    duplicates: u64,
    retried: u64,
    crashed: u64,
    /// What the session has in hand, as indices of entries.
    held: Vec<usize>,
    assigned: BTreeMap<u64, Vec<usize>>,
    kept: BTreeMap<u64, Vec<usize>>,
    finished: u64,
    fence: u64,
}

/// What can be seen of one topic; items by their numbers, those that wait and the dead with their deliveries.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    waiting: Vec<(u64, u32)>,
    assigned: Vec<(u64, Vec<u64>)>,
    kept: Vec<(u64, u64)>,
    dead: Vec<(u64, u32)>,
    /// Put, duplicates, finished, dropped, retried, crashed, fence.
    counts: [u64; 7],
}

impl Line {
    fn put(&mut self, number: u64) {
        if self.entries.iter().any(|entry| entry.number == number) {
            self.duplicates += 1;
        } else {
            self.entries.push(Entry { number, place: Place::Waiting, deliveries: 0, crashes: 0 });
        }
    }

    fn take(&mut self, max: usize) {
        let waiting = self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.place == Place::Waiting);
        for (index, entry) in waiting.take(max) {
            (entry.place, entry.deliveries) = (Place::Leased, entry.deliveries + 1);
            self.held.push(index);
        }
    }

    fn numbers(&self, indices: &[usize]) -> Vec<u64> {
        indices.iter().map(|index| self.entries[*index].number).collect()
    }

    fn assign(&mut self, step: u64) {
        let held = std::mem::take(&mut self.held);
        held.iter().for_each(|index| self.entries[*index].place = Place::InStep);
        self.assigned.insert(step, held);
    }

    fn retire(&mut self, through: u64, keep_from: u64) {
        let open = self.assigned.split_off(&(through + 1));
        let retired = std::mem::replace(&mut self.assigned, open);
        self.finished += retired.values().map(|held| held.len() as u64).sum::<u64>();
        self.kept.extend(retired);
        self.kept = self.kept.split_off(&keep_from);
    }

    /// Ends the process that holds items.
    fn crash(&mut self) {
        for index in self.held.drain(..) {
            let entry = &mut self.entries[index];
            entry.crashes += 1;
            entry.place = if entry.crashes >= settings().max_crashes { Place::Dead } else { Place::Waiting };
            self.crashed += 1;
        }
    }

    fn seen(&self) -> Seen {
        let at = |place: Place| self.entries.iter().filter(move |entry| entry.place == place);
        let (put, dropped) = (self.entries.len() as u64, at(Place::Dropped).count() as u64);
        let kept = |(step, items): (&u64, &Vec<usize>)| self.numbers(items).into_iter().map(|n| (*step, n)).collect();
        Seen {
            waiting: at(Place::Waiting).map(|entry| (entry.number, entry.deliveries)).collect(),
            assigned: self.assigned.iter().map(|(step, items)| (*step, self.numbers(items))).collect(),
            kept: self.kept.iter().flat_map::<Vec<_>, _>(kept).collect(),
            dead: at(Place::Dead).map(|entry| (entry.number, entry.deliveries)).collect(),
            counts: [put, self.duplicates, self.finished, dropped, self.retried, self.crashed, self.fence],
        }
    }
}

/// The run as its acknowledged operations left it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    prompts: Line,
    pairs: Line,
    has_fence: bool,
    next_step: u64,
}

impl Model {
    /// Returns the step that is assigned next.
    pub fn next_step(&self) -> u64 {
        self.next_step
    }

    /// Does what the script says at a place.
    pub fn perform(&mut self, place: u64) {
        let operation = operation(place);
        if matches!(operation, Operation::Assign | Operation::Retire) && !self.has_fence {
            self.pairs.fence += 1;
            self.has_fence = true;
            return;
        }
        match operation {
            Operation::Put => prompts_of(place).for_each(|number| self.prompts.put(number)),
            Operation::TakePrompts(max) => self.prompts.take(max),
            Operation::TakePairs(max) => self.pairs.take(max),
            Operation::Commit => self.commit(),
            Operation::Release => self.release(),
            Operation::Assign => {
                self.pairs.assign(self.next_step);
                self.next_step += 1;
            }
            Operation::Retire => {
                if let Some(through) = self.next_step.checked_sub(2) {
                    self.pairs.retire(through, through);
                }
            }
            Operation::Requeue => {
                for entry in self.prompts.entries.iter_mut().filter(|entry| entry.place == Place::Dead) {
                    *entry = Entry { number: entry.number, place: Place::Waiting, deliveries: 0, crashes: 0 };
                }
            }
        }
    }

    fn commit(&mut self) {
        for index in std::mem::take(&mut self.prompts.held) {
            let entry = &mut self.prompts.entries[index];
            match fate(entry.number) {
                Fate::Tie => entry.place = Place::Dropped,
                Fate::Moved => {
                    entry.place = Place::Finished;
                    self.prompts.finished += 1;
                    self.pairs.put(entry.number);
                }
                Fate::Retry => {
                    let spent = entry.deliveries - entry.crashes >= settings().max_deliveries;
                    entry.place = if spent { Place::Dead } else { Place::Waiting };
                    self.prompts.retried += 1;
                }
            }
        }
    }

    fn release(&mut self) {
        for index in std::mem::take(&mut self.prompts.held) {
            let entry = &mut self.prompts.entries[index];
            (entry.place, entry.deliveries) = (Place::Waiting, entry.deliveries - 1);
        }
    }

    /// Ends the process; the next one has nothing in hand.
    pub fn crash(&mut self) {
        self.prompts.crash();
        self.pairs.crash();
        self.has_fence = false;
    }

    /// Returns what must be seen of both topics once the queue is opened anew.
    pub fn reopened(&self) -> [Seen; 2] {
        let mut reopened = self.clone();
        reopened.crash();
        [reopened.prompts.seen(), reopened.pairs.seen()]
    }
}

/// Returns what a queue file holds of both topics; works on a copy, so that looking changes nothing.
pub fn look(file: &Path) -> [Seen; 2] {
    let copies = tempfile::tempdir().expect("a folder");
    let copy = copies.path().join("copy.redb");
    if file.exists() {
        std::fs::copy(file, &copy).expect("a copy");
    }
    let queue = open(&copy).expect("the queue of a killed process opens");
    run_to_end(async {
        let run = run_id();
        [look_at(&*queue, &Topic::prompts(&run)).await, look_at(&*queue, &Topic::pairs(&run)).await]
    })
}

async fn look_at(queue: &dyn Queue, topic: &Topic) -> Seen {
    let stats = queue.stats(&topic.run).await.expect("the accounts");
    stats.balance().expect("the accounts add up");
    let stats = stats.of(&topic.name);
    let steps = queue.assigned(topic, 0).await.expect("the steps");
    let kept = queue.kept(topic).await.expect("what is kept");
    let dead = queue.dead(topic).await.expect("the dead letters");
    let waiting = queue.take(topic, &Consumer::new("look"), usize::MAX, Duration::ZERO).await.expect("a take");
    let fence = queue.fence(topic).await.expect("a fence").0 - 1;
    assert_eq!((stats.leased, stats.waiting), (0, waiting.len() as u64), "no lease outlives its process");
    assert_eq!((stats.kept, stats.dead.values().sum::<u64>()), (kept.len() as u64, dead.len() as u64));
    assert!(steps.iter().all(|step| step.manifest.body == step.manifest.step.to_be_bytes()));
    let dropped = stats.dropped.values().sum();
    Seen {
        waiting: waiting.iter().map(|leased| (number_of(&leased.item), leased.deliveries - 1)).collect(),
        assigned: steps.iter().map(|step| (step.manifest.step, step.items.iter().map(number_of).collect())).collect(),
        kept: kept.iter().map(|(step, item)| (*step, number_of(item))).collect(),
        dead: dead.iter().map(|letter| (number_of(&letter.item), letter.deliveries)).collect(),
        counts: [stats.put, stats.duplicates, stats.finished, dropped, stats.retried, stats.crashed, fence],
    }
}
