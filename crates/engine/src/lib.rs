//! The sampling engine: an actor on its own thread with a KV cache and keyed draws.
