//! The store that ends with the process.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    Error, Result,
    store::{Row, Store, Table, Tables, View},
};

/// Ordered maps, and what undoes the transaction under way.
#[derive(Default)]
pub(crate) struct Memory {
    tables: [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()],
    undo: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl View for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tables[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8], limit: usize) -> Result<Vec<Row>> {
        let from = self.tables[table as usize].range(prefix.to_vec()..);
        let rows = from.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Corrupt { path: PathBuf::from("(memory)"), reason }
    }
}

impl Tables for Memory {
    fn set(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        let old = self.tables[table as usize].insert(key.to_vec(), value.to_vec());
        self.undo.push((table, key.to_vec(), old));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let old = self.tables[table as usize].remove(key);
        self.undo.push((table, key.to_vec(), old.clone()));
        Ok(old)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<()> {
        let old = self.tables[table as usize].remove(key);
        self.undo.push((table, key.to_vec(), old));
        Ok(())
    }
}

impl Store for Memory {
    const BLOCKS: bool = false;

    fn write<T>(&mut self, change: impl FnOnce(&mut dyn Tables) -> Result<T>) -> Result<T> {
        self.undo.clear();
        let done = change(self);
        if done.is_err() {
            while let Some((table, key, old)) = self.undo.pop() {
                match old {
                    Some(value) => self.tables[table as usize].insert(key, value),
                    None => self.tables[table as usize].remove(&key),
                };
            }
        }
        done
    }

    fn read<T>(&self, look: impl FnOnce(&dyn View) -> Result<T>) -> Result<T> {
        look(self)
    }
}
