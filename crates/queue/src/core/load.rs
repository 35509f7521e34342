//! Opening: reading what the store holds, and taking back what the process before this one had leased.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Core, State, TopicState,
    rows::{Tries, at, decode_counters, decode_id, key, topic_of},
};
use crate::{
    Clock, Result, Settings, Topic,
    store::{Store, Table, View},
};

const SESSION_KEY: &[u8] = b"session";

impl<S: Store> Core<S> {
    /// Opens the queue that a store holds.
    pub(crate) fn open(mut store: S, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let session = store.write(|tables| {
            let last = tables.get(Table::Meta, SESSION_KEY)?;
            let session = last.and_then(|last| at(&last)).unwrap_or_default() + 1;
            tables.set(Table::Meta, SESSION_KEY, &session.to_be_bytes())?;
            Ok(session)
        })?;
        let mut core = Self { store, settings, clock, state: State { token: session << 32, ..State::default() } };
        let crashed = core.load()?;
        core.void_leases(crashed)?;
        Ok(core)
    }

    /// Reads the topics; returns what a process that has ended was working on.
    fn load(&mut self) -> Result<Vec<(Topic, u64, Tries)>> {
        let (topics, crashed) = self.store.read(|view| {
            let corrupt = |key: &[u8]| {
                view.corrupt(format!("the counters of topic {:?} cannot be read", String::from_utf8_lossy(key)))
            };
            let (mut topics, mut crashed) = (Vec::new(), Vec::new());
            for (key, row) in view.scan(Table::Topics, b"", usize::MAX)? {
                let (number, counters) = decode_counters(&row).ok_or_else(|| corrupt(&key))?;
                let topic = topic_of(&key).ok_or_else(|| corrupt(&key))?;
                let ids = view.scan(Table::Ids, &number.to_be_bytes(), usize::MAX)?;
                let ids = ids.iter().map(|(key, id)| decode_id(key, id)).collect::<Option<_>>();
                let ids = ids.ok_or_else(|| view.corrupt(format!("an id of topic {topic} cannot be read")))?;
                let mut waiting = BTreeMap::new();
                for (place, tries, leased) in tries_of(view, &topic, number)? {
                    if leased {
                        crashed.push((topic.clone(), place, tries));
                    } else {
                        waiting.insert(place, tries);
                    }
                }
                topics.push((topic, TopicState { number, counters, waiting, ids, ..TopicState::default() }));
            }
            Ok((topics, crashed))
        })?;
        self.state.topics = topics.into_iter().collect();
        Ok(crashed)
    }

    /// Takes back what a process that has ended was working on.
    fn void_leases(&mut self, crashed: Vec<(Topic, u64, Tries)>) -> Result<()> {
        self.transact(|txn| {
            for (topic, place, tries) in crashed {
                let row = key(txn.topic(&topic).number, place);
                txn.tables.delete(Table::Leased, &row)?;
                txn.recover_crashed(&topic, place, tries)?;
            }
            Ok(())
        })
    }
}

/// Reads what waits and what was leased, with its tries; in files of schema version 2 and before the leased have a table of their own.
fn tries_of(view: &dyn View, topic: &Topic, number: u32) -> Result<Vec<(u64, Tries, bool)>> {
    let prefix = number.to_be_bytes();
    let corrupt = || view.corrupt(format!("the deliveries of an item of topic {topic} cannot be read"));
    let mut found = Vec::new();
    for (key, row) in view.scan(Table::Waiting, &prefix, usize::MAX)? {
        let (tries, leased) = Tries::decode_row(&row).ok_or_else(corrupt)?;
        found.push((at(&key).ok_or_else(corrupt)?, tries, leased));
    }
    for (key, row) in view.scan(Table::Leased, &prefix, usize::MAX)? {
        found.push((at(&key).ok_or_else(corrupt)?, Tries::decode(&row).ok_or_else(corrupt)?, true));
    }
    Ok(found)
}
