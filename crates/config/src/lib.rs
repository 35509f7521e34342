//! Run file and deployment file: the five choices, presets, validation, overrides, JSON Schema.

pub mod judge;
