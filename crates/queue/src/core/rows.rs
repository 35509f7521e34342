//! Keys and values of the store's rows.

use std::{collections::BTreeMap, io};

use joust_core::{RecordId, RunId};
use serde::{Deserialize, Serialize};

use crate::{Item, Topic};

/// What a topic counts as it happens; what lies in a table is counted there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counters {
    pub next_place: u64,
    pub put: u64,
    pub duplicates: u64,
    pub finished: u64,
    pub dropped: BTreeMap<String, u64>,
    pub expired: u64,
    pub crashed: u64,
    pub retried: u64,
    pub fence: u64,
    /// `None` until the first step is assigned.
    pub next_step: Option<u64>,
}

/// How often an item was handed out, and how often its process ended meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tries {
    pub deliveries: u32,
    pub crashes: u32,
}

impl Tries {
    pub(super) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.deliveries.to_be_bytes());
        bytes[4..].copy_from_slice(&self.crashes.to_be_bytes());
        bytes
    }

    /// Encodes those of an item in a consumer's hands, which a byte more tells from those of one that waits.
    pub(super) fn encode_leased(self) -> [u8; 9] {
        let mut bytes = [1; 9];
        bytes[..8].copy_from_slice(&self.encode());
        bytes
    }

    /// Decodes a row of either kind, and says whether the item was in a consumer's hands.
    pub(super) fn decode_row(bytes: &[u8]) -> Option<(Self, bool)> {
        let (tries, leased) = bytes.split_at_checked(8)?;
        (leased.is_empty() || leased == [1]).then_some((Self::decode(tries)?, !leased.is_empty()))
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (deliveries, crashes) = bytes.split_first_chunk::<4>()?;
        let number = u32::from_be_bytes;
        Some(Self { deliveries: number(*deliveries), crashes: number(crashes.try_into().ok()?) })
    }
}

/// Joins a topic's number and a place or step; sorts as they do.
pub(super) fn key(topic: u32, at: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&topic.to_be_bytes());
    key[4..].copy_from_slice(&at.to_be_bytes());
    key
}

/// Reads the place or step of a [`key`].
pub(super) fn at(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk::<8>()?))
}

/// Reads a row that says which id is at which place: topic and place to id, or, in files of schema version 1, topic and id to place.
pub(super) fn decode_id(key: &[u8], value: &[u8]) -> Option<(RecordId, u64)> {
    let (id, place) =
        if let Ok(id) = <[u8; 16]>::try_from(value) { (id, at(key)?) } else { (*key.last_chunk()?, at(value)?) };
    Some((RecordId::from_bytes(id), place))
}

/// Names a topic; the byte between run and name is in neither.
pub(super) fn topic_key(topic: &Topic) -> Vec<u8> {
    format!("{}/{}", topic.run, topic.name).into_bytes()
}

pub(super) fn topic_of(key: &[u8]) -> Option<Topic> {
    let (run, name) = std::str::from_utf8(key).ok()?.split_once('/')?;
    Topic::new(&RunId::new(run).ok()?, name).ok()
}

pub(super) fn encode_counters(number: u32, counters: &Counters) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend(rmp_serde::to_vec_named(counters).expect("counters hold only plain data, which always encodes"));
    bytes
}

pub(super) fn decode_counters(bytes: &[u8]) -> Option<(u32, Counters)> {
    let (number, counters) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rmp_serde::from_slice(counters).ok()?))
}

pub(super) fn encode_item(item: &Item) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + item.trace.as_ref().map_or(0, String::len) + item.body.len());
    write_item(item, &mut bytes).expect("memory takes every write");
    bytes
}

/// Writes an item: id, length of the trace context + 1 (0 for none), trace context, body.
pub(crate) fn write_item(item: &Item, to: &mut impl io::Write) -> io::Result<()> {
    let length = item.trace.as_ref().map_or(0, |trace| trace.len() as u64 + 1);
    to.write_all(item.id.as_bytes())?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(item.trace.as_deref().unwrap_or_default().as_bytes())?;
    to.write_all(&item.body)
}

pub(crate) fn decode_item(bytes: &[u8]) -> Option<Item> {
    let (id, rest) = bytes.split_first_chunk::<16>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (trace, body) = match u64::from_be_bytes(*length) {
        0 => (None, rest),
        length => {
            let (trace, body) = rest.split_at_checked(usize::try_from(length - 1).ok()?)?;
            (Some(std::str::from_utf8(trace).ok()?.to_owned()), body)
        }
    };
    Some(Item { id: RecordId::from_bytes(*id), body: body.to_vec(), trace })
}

pub(super) fn encode_places(places: &[u64]) -> Vec<u8> {
    places.iter().flat_map(|place| place.to_be_bytes()).collect()
}

pub(super) fn decode_places(bytes: &[u8]) -> Option<Vec<u64>> {
    let (places, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| places.iter().map(|place| u64::from_be_bytes(*place)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_round_trip_with_and_without_a_trace() {
        for trace in [None, Some(String::new()), Some("00-ab-cd-01".to_owned())] {
            let item = Item { id: RecordId::derive(&[b"x"]), body: vec![0, 255, 7], trace };
            assert_eq!(decode_item(&encode_item(&item)), Some(item));
        }
    }

    #[test]
    fn a_cut_item_is_refused() {
        let item = Item { id: RecordId::derive(&[b"x"]), body: Vec::new(), trace: Some("trace".into()) };
        let bytes = encode_item(&item);
        assert!((0..bytes.len()).all(|end| decode_item(&bytes[..end]).is_none()));
    }

    #[test]
    fn ids_are_read_as_both_versions_write_them() {
        let id = RecordId::derive(&[b"x"]);
        assert_eq!(decode_id(&key(7, 42), id.as_bytes()), Some((id, 42)));
        let old = [&7u32.to_be_bytes(), id.as_bytes().as_slice()].concat();
        assert_eq!(decode_id(&old, &42u64.to_be_bytes()), Some((id, 42)));
        assert_eq!(decode_id(&old[..8], &42u64.to_be_bytes()), None);
    }

    #[test]
    fn keys_sort_by_topic_then_place() {
        assert!(key(1, u64::MAX) < key(2, 0) && key(2, 255) < key(2, 256));
        assert_eq!(at(&key(7, 42)), Some(42));
    }
}
