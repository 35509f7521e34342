//! Steps: fencing, assigning and retiring.

use super::{
    rows::{at, decode_places, encode_places, key},
    txn::Txn,
};
use crate::{
    Error, Fence, Lease, Result, StepManifest, Topic,
    store::{Row, Table},
};

impl Txn<'_> {
    pub(super) fn fence(&mut self, topic: &Topic) -> Fence {
        let counters = &mut self.topic(topic).counters;
        counters.fence += 1;
        Fence(counters.fence)
    }

    fn check_fence(&mut self, topic: &Topic, Fence(held): Fence) -> Result<()> {
        match self.topic(topic).counters.fence {
            current if current == held && held > 0 => Ok(()),
            current => Err(Error::Fenced { topic: topic.clone(), held, current }),
        }
    }

    pub(super) fn assign(
        &mut self,
        topic: &Topic,
        leases: &[Lease],
        manifest: &StepManifest,
        fence: Fence,
    ) -> Result<()> {
        self.check_fence(topic, fence)?;
        let step = manifest.step;
        let draft = self.topic(topic);
        let number = draft.number;
        match draft.counters.next_step {
            Some(next) if step < next => return Err(Error::AlreadyAssigned { topic: topic.clone(), step }),
            Some(next) if step > next => {
                return Err(Error::StepGap { topic: topic.clone(), expected: next, found: step });
            }
            _ => draft.counters.next_step = Some(step + 1),
        }
        for lease in leases {
            if lease.topic != *topic {
                let (found, expected) = (lease.topic.clone(), topic.clone());
                return Err(Error::WrongTopic { id: lease.id, found, expected });
            }
            self.end_lease(lease)?;
        }
        let places: Vec<u64> = leases.iter().map(|lease| lease.place).collect();
        self.tables.set(Table::Steps, &key(number, step), &encode_places(&places))?;
        self.tables.set(Table::Manifests, &key(number, step), &manifest.body)
    }

    pub(super) fn retire(&mut self, topic: &Topic, through: u64, keep_from: u64, fence: Fence) -> Result<()> {
        self.check_fence(topic, fence)?;
        let number = self.topic(topic).number;
        for (step, row) in self.rows_of_steps(topic, Table::Steps)? {
            if step > through {
                break;
            }
            self.tables.remove(Table::Steps, &row.0)?;
            self.tables.delete(Table::Manifests, &row.0)?;
            self.tables.set(Table::Kept, &row.0, &row.1)?;
            self.topic(topic).counters.finished += self.places(topic, step, &row.1)?.len() as u64;
        }
        for (step, row) in self.rows_of_steps(topic, Table::Kept)? {
            if step >= keep_from {
                break;
            }
            self.tables.remove(Table::Kept, &row.0)?;
            for place in self.places(topic, step, &row.1)? {
                self.tables.delete(Table::Bodies, &key(number, place))?;
            }
        }
        Ok(())
    }

    fn rows_of_steps(&mut self, topic: &Topic, table: Table) -> Result<Vec<(u64, Row)>> {
        let number = self.topic(topic).number;
        let rows = self.tables.scan(table, &number.to_be_bytes(), usize::MAX)?;
        rows.into_iter().map(|row| Ok((at(&row.0).ok_or_else(|| self.corrupt(topic, 0))?, row))).collect()
    }

    fn places(&self, topic: &Topic, step: u64, row: &[u8]) -> Result<Vec<u64>> {
        decode_places(row).ok_or_else(|| self.corrupt(topic, step))
    }
}
