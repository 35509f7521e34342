//! Opening: reading what the store holds, and taking back what the process before this one had leased.

use std::sync::Arc;

use super::{
    Core, State, TopicState,
    rows::{at, decode_counters, decode_id, topic_of},
    txn::Lost,
};
use crate::{
    Clock, Result, Settings, Topic,
    store::{Store, Table},
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
        core.load()?;
        core.void_leases()?;
        Ok(core)
    }

    fn load(&mut self) -> Result<()> {
        let topics = self.store.read(|view| {
            let corrupt = |key: &[u8]| {
                view.corrupt(format!("the counters of topic {:?} cannot be read", String::from_utf8_lossy(key)))
            };
            let mut topics = Vec::new();
            for (key, row) in view.scan(Table::Topics, b"", usize::MAX)? {
                let (number, counters) = decode_counters(&row).ok_or_else(|| corrupt(&key))?;
                let topic = topic_of(&key).ok_or_else(|| corrupt(&key))?;
                let waiting = view.scan(Table::Waiting, &number.to_be_bytes(), usize::MAX)?.len() as u64;
                let ids = view.scan(Table::Ids, &number.to_be_bytes(), usize::MAX)?;
                let ids = ids.iter().map(|(key, id)| decode_id(key, id)).collect::<Option<_>>();
                let ids = ids.ok_or_else(|| view.corrupt(format!("an id of topic {topic} cannot be read")))?;
                topics.push((topic, TopicState { number, counters, waiting, ids, ..TopicState::default() }));
            }
            Ok(topics)
        })?;
        self.state.topics = topics.into_iter().collect();
        Ok(())
    }

    /// Takes back what a process that has ended was working on.
    fn void_leases(&mut self) -> Result<()> {
        let topics: Vec<(Topic, u32)> =
            self.state.topics.iter().map(|(topic, state)| (topic.clone(), state.number)).collect();
        self.transact(|txn| {
            for (topic, number) in topics {
                for (key, _) in txn.tables.scan(Table::Leased, &number.to_be_bytes(), usize::MAX)? {
                    let place = at(&key).ok_or_else(|| txn.corrupt(&topic, 0))?;
                    txn.recover_one(&topic, place, Lost::Crashed)?;
                }
            }
            Ok(())
        })
    }
}
