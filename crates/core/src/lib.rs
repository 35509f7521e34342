//! Identities, records, keyed randomness and shutdown shared by every crate; no libtorch.
