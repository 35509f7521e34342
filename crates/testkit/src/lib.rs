//! Tiny models and helpers for tests; never part of a release.
