//! What a script answers: a status, then values or rows of values.

use std::{collections::BTreeMap, sync::Arc};

use redis::Value;

use crate::{Error, Result};

/// Where an item that was taken is, and how often it was handed out before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket<'a> {
    pub place: u64,
    /// Place of the first item of its batch.
    pub first: &'a str,
    /// Its number in the batch.
    pub number: &'a str,
    pub deliveries: u32,
}

impl<'a> Ticket<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(':');
        let (place, (first, number)) = (parts.next()?.parse().ok()?, parts.next()?.split_once('/')?);
        let deliveries = parts.next().map_or(Some(0), |deliveries| deliveries.parse().ok())?;
        Some(Self { place, first, number, deliveries })
    }
}

/// A list of values, and who sent it.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    values: Arc<Vec<Value>>,
    server: Arc<str>,
}

impl Reply {
    pub(super) fn new(value: Value, server: &Arc<str>) -> Result<Self> {
        match value {
            Value::Array(values) => Ok(Self { values: Arc::new(values), server: server.clone() }),
            other => Err(Error::Server { server: server.to_string(), reason: format!("it answered {other:?}") }),
        }
    }

    /// Says that the server holds what the queue does not write.
    pub(super) fn broken(&self, reason: String) -> Error {
        Error::Server { server: self.server.to_string(), reason }
    }

    fn missing(&self, at: usize, wanted: &str) -> Error {
        self.broken(format!("its answer has {:?} at {at}, expected {wanted}", self.values.get(at)))
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns the first value, which says how the script ended.
    pub(super) fn status(&self) -> &str {
        self.text(0).unwrap_or("nothing")
    }

    pub(super) fn bytes(&self, at: usize) -> Result<&[u8]> {
        match self.values.get(at) {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(self.missing(at, "bytes")),
        }
    }

    pub(super) fn text(&self, at: usize) -> Result<&str> {
        std::str::from_utf8(self.bytes(at)?).map_err(|_| self.missing(at, "text"))
    }

    pub(super) fn number(&self, at: usize) -> Result<u64> {
        let number = match self.values.get(at) {
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            Some(Value::BulkString(_)) => self.text(at)?.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.missing(at, "a number"))
    }

    pub(super) fn ticket(&self, at: usize) -> Result<Ticket<'_>> {
        Ticket::read(self.text(at)?).ok_or_else(|| self.missing(at, "a ticket"))
    }

    pub(super) fn list(&self, at: usize) -> Result<Self> {
        match self.values.get(at) {
            Some(Value::Array(values)) => Ok(Self { values: Arc::new(values.clone()), server: self.server.clone() }),
            _ => Err(self.missing(at, "a list")),
        }
    }

    /// Reads names and numbers in turns.
    pub(super) fn map(&self, at: usize) -> Result<BTreeMap<String, u64>> {
        let list = self.list(at)?;
        (0..list.len()).step_by(2).map(|i| Ok((list.text(i)?.to_owned(), list.number(i + 1)?))).collect()
    }

    /// Returns the lists from `first` on; what is none becomes an empty one, whose values are then missing.
    pub(super) fn rows(&self, first: usize) -> impl Iterator<Item = Self> + '_ {
        (first..self.len()).map(|at| {
            let empty = || Self { values: Arc::default(), server: self.server.clone() };
            self.list(at).unwrap_or_else(|_| empty())
        })
    }
}
