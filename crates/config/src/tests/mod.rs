//! Tests of whole files.

mod bad_input;
mod layers;
mod other_files;
mod reference;
mod round_trip;

use std::path::Path;

use crate::{Error, Resolved, resolve};

/// The run file of the design, whole.
pub(crate) const WHOLE: &str = include_str!("whole.toml");

/// The least that a run file can say.
pub(crate) const LEAST: &str = r#"
schema = 1
name = "least"
[policy]
model = "base"
[data]
prompts = "prompts.jsonl"
[[judge]]
name = "main"
kind = "rule"
rules = [{ words = { happy = 1.0 } }]
"#;

/// Resolves a run file at `conf/run.toml` with overrides.
pub(crate) fn run(text: &str, overrides: &[&str]) -> Result<Resolved, Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    resolve(text, Path::new("conf/run.toml"), &overrides, &[])
}
