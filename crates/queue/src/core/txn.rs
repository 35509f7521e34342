//! One transaction: putting, handing out, finishing and giving up items.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use joust_core::RecordId;

use super::{
    Held, State, TopicState,
    rows::{Counters, Tries, decode_item, encode_counters, encode_item, key, topic_key},
};
use crate::{
    Consumer, Done, Error, Item, Lease, Leased, PutReport, Result, Settings, Topic,
    store::{Table, Tables},
};

/// Reason of the dead letters that no consumer finished in time.
const EXPIRED: &str = "lease ran out too often";
/// Reason of the dead letters that ended their process, or were there each time it ended.
const CRASHED: &str = "process ended too often while it was leased";

/// Why a leased item goes back without its consumer's word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Its lease ran out.
    Expired,
    /// Its process ended.
    Crashed,
}

/// The topics as this transaction sees and changes them, and the tables under them.
pub(super) struct Txn<'a> {
    pub tables: &'a mut dyn Tables,
    pub state: &'a State,
    settings: &'a Settings,
    now: Duration,
    drafts: BTreeMap<Topic, Draft>,
    token: u64,
}

/// What a transaction makes of a topic.
pub(super) struct Draft {
    pub number: u32,
    pub counters: Counters,
    waiting: u64,
    /// What waits now with its tries, and what does no longer.
    moved: BTreeMap<u64, Option<Tries>>,
    /// Places of the new ids.
    ids: HashMap<RecordId, u64>,
    leases: BTreeMap<u64, Option<Held>>,
}

impl Draft {
    fn of(topic: &TopicState) -> Self {
        let (number, counters) = (topic.number, topic.counters.clone());
        let (moved, ids, leases) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
        Self { number, counters, waiting: topic.waiting.len() as u64, moved, ids, leases }
    }

    /// Lets the item at a place wait.
    fn wait(&mut self, place: u64, tries: Tries) {
        self.waiting += 1;
        self.moved.insert(place, Some(tries));
    }

    /// Takes the changes over once they are durable.
    pub(super) fn apply(self, topic: &mut TopicState) {
        (topic.number, topic.counters) = (self.number, self.counters);
        topic.ids.extend(self.ids);
        for (place, tries) in self.moved {
            match tries {
                Some(tries) => topic.waiting.insert(place, tries),
                None => topic.waiting.remove(&place),
            };
        }
        for (place, held) in self.leases {
            match held {
                Some(held) => topic.leases.insert(place, held),
                None => topic.leases.remove(&place),
            };
        }
    }
}

impl<'a> Txn<'a> {
    pub(super) fn new(tables: &'a mut dyn Tables, state: &'a State, settings: &'a Settings, now: Duration) -> Self {
        Self { tables, state, settings, now, drafts: BTreeMap::new(), token: state.token }
    }

    /// Writes the counters and returns what the state takes over after the commit.
    pub(super) fn save(self) -> Result<(BTreeMap<Topic, Draft>, u64)> {
        for (topic, draft) in &self.drafts {
            let row = encode_counters(draft.number, &draft.counters);
            self.tables.set(Table::Topics, &topic_key(topic), &row)?;
        }
        Ok((self.drafts, self.token))
    }

    /// Returns the topic as this transaction sees it; makes one that was never used.
    pub(super) fn topic(&mut self, topic: &Topic) -> &mut Draft {
        if !self.drafts.contains_key(topic) {
            let draft = match self.state.topics.get(topic) {
                Some(known) => Draft::of(known),
                None => {
                    let made = self.drafts.keys().filter(|topic| !self.state.topics.contains_key(topic)).count();
                    let number = (self.state.topics.len() + made) as u32;
                    Draft { number, ..Draft::of(&TopicState::default()) }
                }
            };
            self.drafts.insert(topic.clone(), draft);
        }
        self.drafts.get_mut(topic).expect("the draft was inserted above")
    }

    pub(super) fn corrupt(&self, topic: &Topic, place: u64) -> Error {
        self.tables.corrupt(format!("the record at place {place} of topic {topic} is missing or cannot be read"))
    }

    /// Puts a batch from outside.
    pub(super) fn put(&mut self, topic: &Topic, items: Vec<Item>) -> Result<PutReport> {
        let waiting = self.topic(topic).waiting;
        let report = self.append(topic, items)?;
        let capacity = self.settings.capacity_of(&topic.name);
        if report.added > 0 && waiting > 0 && waiting + report.added > capacity {
            return Err(Error::Full { topic: topic.clone(), capacity, waiting });
        }
        Ok(report)
    }

    /// Puts the outputs of a commit: a target takes all of them while it is below its capacity.
    pub(super) fn put_outputs(&mut self, next: Vec<(Topic, Item)>) -> Result<()> {
        let mut outputs: BTreeMap<Topic, Vec<Item>> = BTreeMap::new();
        for (topic, item) in next {
            outputs.entry(topic).or_default().push(item);
        }
        for (topic, items) in outputs {
            // What this very commit gives back for another try takes no place away from its outputs.
            let waiting = self.state.topics.get(&topic).map_or(0, |topic| topic.waiting.len() as u64);
            let report = self.append(&topic, items)?;
            let capacity = self.settings.capacity_of(&topic.name);
            if report.added > 0 && waiting >= capacity {
                return Err(Error::Full { topic, capacity, waiting });
            }
        }
        Ok(())
    }

    /// Returns the place of an id that the topic has seen.
    fn place_of(&self, topic: &Topic, id: &RecordId) -> Option<u64> {
        let new = self.drafts.get(topic).and_then(|draft| draft.ids.get(id));
        new.or_else(|| self.state.topics.get(topic)?.ids.get(id)).copied()
    }

    fn append(&mut self, topic: &Topic, items: Vec<Item>) -> Result<PutReport> {
        let Draft { number, counters: Counters { next_place: first, .. }, .. } = *self.topic(topic);
        let (mut place, mut report) = (first, PutReport::default());
        for item in items {
            if self.place_of(topic, &item.id).is_some() {
                report.duplicates += 1;
                continue;
            }
            let draft = self.topic(topic);
            draft.ids.insert(item.id, place);
            draft.wait(place, Tries::default());
            self.tables.set(Table::Ids, &key(number, place), item.id.as_bytes())?;
            self.tables.set(Table::Bodies, &key(number, place), &encode_item(&item))?;
            self.tables.set(Table::Waiting, &key(number, place), &Tries::default().encode())?;
            place += 1;
            report.added += 1;
        }
        let draft = self.topic(topic);
        draft.counters.next_place = place;
        draft.counters.put += report.added;
        draft.counters.duplicates += report.duplicates;
        Ok(report)
    }

    /// Hands out what waits, in put order.
    pub(super) fn take(&mut self, topic: &Topic, who: &Consumer, max: usize) -> Result<Vec<Leased>> {
        let number = self.topic(topic).number;
        let mut taken = Vec::new();
        for (place, mut tries) in self.first_waiting(topic, max) {
            let item = self.item(topic, place)?;
            tries.deliveries = tries.deliveries.saturating_add(1);
            self.tables.set(Table::Waiting, &key(number, place), &tries.encode_leased())?;
            self.token += 1;
            let (token, expires) = (self.token, self.now.saturating_add(self.settings.lease));
            let draft = self.topic(topic);
            draft.waiting -= 1;
            draft.moved.insert(place, None);
            draft.leases.insert(place, Some(Held { token, expires, holder: who.clone(), tries }));
            let lease = Lease { topic: topic.clone(), id: item.id, place, token };
            taken.push(Leased { lease, item, deliveries: tries.deliveries });
        }
        Ok(taken)
    }

    /// Returns the places that have waited for longest, in order.
    fn first_waiting(&mut self, topic: &Topic, max: usize) -> Vec<(u64, Tries)> {
        let state: &State = self.state;
        let known = state.topics.get(topic).map(|topic| &topic.waiting);
        let moved = &self.topic(topic).moved;
        let still = known.into_iter().flatten().filter(|(place, _)| !moved.contains_key(place));
        let mut places: Vec<(u64, Tries)> = still.map(|(place, tries)| (*place, *tries)).take(max).collect();
        places.extend(moved.iter().filter_map(|(place, tries)| Some((*place, (*tries)?))));
        places.sort_unstable_by_key(|(place, _)| *place);
        places.truncate(max);
        places
    }

    /// Reads the item at a place.
    fn item(&self, topic: &Topic, place: u64) -> Result<Item> {
        let number = self.drafts.get(topic).map_or(0, |draft| draft.number);
        let row = self.tables.get(Table::Bodies, &key(number, place))?;
        row.as_deref().and_then(decode_item).ok_or_else(|| self.corrupt(topic, place))
    }

    /// Takes a lease back from its holder; a second time within the transaction it is lost.
    pub(super) fn end_lease(&mut self, lease: &Lease) -> Result<Tries> {
        self.state.held(lease)?;
        self.unlease(&lease.topic, lease.place)?
            .ok_or_else(|| Error::LeaseLost { topic: lease.topic.clone(), id: lease.id })
    }

    fn unlease(&mut self, topic: &Topic, place: u64) -> Result<Option<Tries>> {
        let state: &State = self.state;
        let known = state.topics.get(topic).and_then(|topic| topic.leases.get(&place));
        let draft = self.topic(topic);
        let tries = match draft.leases.insert(place, None) {
            Some(own) => own.map(|held| held.tries),
            None => known.map(|held| held.tries),
        };
        let row = key(draft.number, place);
        self.tables.delete(Table::Waiting, &row)?;
        Ok(tries)
    }

    /// Ends a leased item as its consumer says.
    pub(super) fn finish(&mut self, lease: &Lease, done: Done) -> Result<()> {
        let tries = self.end_lease(lease)?;
        let draft = self.topic(&lease.topic);
        match done {
            Done::Moved => draft.counters.finished += 1,
            Done::Dropped(reason) => *draft.counters.dropped.entry(reason).or_default() += 1,
            Done::Retry(reason) => {
                draft.counters.retried += 1;
                let spent = tries.deliveries.saturating_sub(tries.crashes) >= self.settings.max_deliveries;
                return self.give_back(&lease.topic, lease.place, tries, spent.then_some(reason.as_str()));
            }
        }
        let row = key(draft.number, lease.place);
        self.tables.delete(Table::Bodies, &row)
    }

    /// Gives a leased item back as if it had never been taken.
    pub(super) fn release(&mut self, lease: &Lease) -> Result<()> {
        let tries = self.end_lease(lease)?;
        let untaken = Tries { deliveries: tries.deliveries.saturating_sub(1), ..tries };
        self.give_back(&lease.topic, lease.place, untaken, None)
    }

    /// Gives back every item of a topic whose lease ran out.
    pub(super) fn recover(&mut self, topic: &Topic) -> Result<()> {
        let Some(known) = self.state.topics.get(topic) else { return Ok(()) };
        let expired = known.leases.iter().filter(|(_, held)| held.expires <= self.now);
        let places: Vec<u64> = expired.map(|(place, _)| *place).collect();
        places.into_iter().try_for_each(|place| {
            let tries = self.unlease(topic, place)?.ok_or_else(|| self.corrupt(topic, place))?;
            self.recover_one(topic, place, (tries, Lost::Expired))
        })
    }

    /// Gives back an item that a process which has ended was working on, or gives it up.
    pub(super) fn recover_crashed(&mut self, topic: &Topic, place: u64, tries: Tries) -> Result<()> {
        self.unlease(topic, place)?;
        self.recover_one(topic, place, (tries, Lost::Crashed))
    }

    /// Gives back an item that its consumer lost, or gives it up.
    fn recover_one(&mut self, topic: &Topic, place: u64, (mut tries, lost): (Tries, Lost)) -> Result<()> {
        let counters = &mut self.topic(topic).counters;
        let dead = match lost {
            Lost::Expired => {
                counters.expired += 1;
                let tried = tries.deliveries.saturating_sub(tries.crashes);
                (tried >= self.settings.max_deliveries).then_some(EXPIRED)
            }
            Lost::Crashed => {
                counters.crashed += 1;
                tries.crashes = tries.crashes.saturating_add(1);
                (tries.crashes >= self.settings.max_crashes).then_some(CRASHED)
            }
        };
        self.give_back(topic, place, tries, dead)
    }

    /// Puts an item back to its place, or to the dead letters for a reason.
    fn give_back(&mut self, topic: &Topic, place: u64, tries: Tries, dead: Option<&str>) -> Result<()> {
        let draft = self.topic(topic);
        let row = key(draft.number, place);
        let Some(reason) = dead else {
            draft.wait(place, tries);
            return self.tables.set(Table::Waiting, &row, &tries.encode());
        };
        let letter = [&tries.encode(), reason.as_bytes()].concat();
        self.tables.set(Table::Dead, &row, &letter)
    }

    /// Puts a dead letter back to its place, as new.
    pub(super) fn requeue(&mut self, topic: &Topic, id: &RecordId) -> Result<()> {
        let number = self.topic(topic).number;
        let not_dead = || Error::NotDead { topic: topic.clone(), id: *id };
        let place = self.place_of(topic, id).ok_or_else(not_dead)?;
        self.tables.remove(Table::Dead, &key(number, place))?.ok_or_else(not_dead)?;
        self.give_back(topic, place, Tries::default(), None)
    }
}
