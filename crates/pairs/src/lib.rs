//! Selection, pairing, filters and replay order as pure functions.
