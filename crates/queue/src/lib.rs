//! The durable queue: one trait, a memory and an embedded (redb) backend, one conformance suite.
