//! Leased records as their consumers want them: decoded, and what does not decode on its way to the dead letters.

use joust_core::decode;
use serde::de::DeserializeOwned;

use crate::{Done, Lease, Leased};

/// A record, the right to it, and the trace context (`traceparent`) that came with it.
pub type Unpacked<T> = (Lease, T, Option<String>);

/// Leases that end, each as its item asks.
pub type Finished = Vec<(Lease, Done)>;

/// Decodes leased items as records of one kind.
///
/// # Returns
/// The records with their leases and trace contexts, in order, and the others with a [`Done::Retry`] that names the problem, to be
/// committed.
pub fn unpack<T: DeserializeOwned>(kind: &'static str, leased: Vec<Leased>) -> (Vec<Unpacked<T>>, Finished) {
    let (mut records, mut refused) = (Vec::with_capacity(leased.len()), Finished::new());
    for Leased { lease, item, .. } in leased {
        match decode(kind, &item.body) {
            Ok(record) => records.push((lease, record, item.trace)),
            Err(error) => {
                tracing::warn!(id = %item.id, %error, "a record does not decode; it is tried again, then given up");
                refused.push((lease, Done::Retry(error.to_string())));
            }
        }
    }
    (records, refused)
}
