//! The metrics of a run: `metrics.jsonl` and TensorBoard event files, written from one stream.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    jsonl::{JsonlFile, Key},
    tensorboard::{EventFile, Scalars},
};

/// Name of the metrics file in a run folder.
const FILE: &str = "metrics.jsonl";
/// Name of the folder of event files in a run folder.
const EVENTS: &str = "tensorboard";

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// An optimizer step, numbered from 0.
    Step,
    /// An evaluation, numbered by the steps done.
    Eval,
}

impl Kind {
    fn key(self, step: u64) -> Key {
        let name = match self {
            Self::Step => "step",
            Self::Eval => "eval",
        };
        Key { kind: Some(name.to_owned()), step }
    }
}

/// A record as it is written.
#[derive(Serialize)]
struct Record<'a> {
    kind: Kind,
    step: u64,
    time_s: f64,
    #[serde(flatten)]
    values: &'a BTreeMap<String, f64>,
}

/// A record as it is read back: a value that is not finite was written as `null`.
#[derive(Deserialize)]
struct Kept {
    step: u64,
    time_s: f64,
    #[serde(flatten)]
    values: BTreeMap<String, serde_json::Value>,
}

/// Writer of `metrics.jsonl` and of the event files under `tensorboard/` in a run folder.
///
/// A line is `{"kind":"step","step":0,"time_s":..,"<name>":<value>,..}` or the same with `"kind":"eval"`, with `time_s` in seconds
/// since 1970 and `null` for a value that is not finite. Each (kind, step) stands once: a second one is not written, neither in
/// one life of the process nor after a resume. A record outlives the process when the call that wrote it has returned; it may be
/// lost when the machine loses power.
#[derive(Debug)]
pub struct MetricsLog {
    lines: JsonlFile,
    events: EventFile,
}

impl MetricsLog {
    /// Opens the metrics of the run folder `dir`, which must exist.
    ///
    /// # Arguments
    /// * `dir` - the run folder.
    /// * `resume_from_step` - `None` starts new files in place of any that are there. `Some(s)`, with s steps done, keeps step records
    ///   below s (the others are made again) and evaluations up to s (the one after step s was made before the checkpoint of s
    ///   or is made again and then not written twice), drops a line that a kill cut, and builds the event file anew from what it keeps.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, [`Error::Line`] for a line that is not a record.
    pub fn open(dir: &Path, resume_from_step: Option<u64>) -> Result<Self> {
        let path = dir.join(FILE);
        let keep = resume_from_step.map(|from| {
            move |key: &Key| match key.kind.as_deref() {
                Some("eval") => key.step <= from,
                _ => key.step < from,
            }
        });
        let (lines, kept) = JsonlFile::open(path.clone(), keep.as_ref().map(|keep| keep as &dyn Fn(&Key) -> bool))?;
        let history: Vec<(f64, u64, BTreeMap<String, f64>)> =
            kept.iter().enumerate().map(|(index, line)| parse(&path, index, line)).collect::<Result<_>>()?;
        let scalars =
            history.iter().map(|(time_s, step, values)| Scalars { wall_time_s: *time_s, step: *step, values });
        let events = EventFile::rebuild(&dir.join(EVENTS), now_s(), scalars)?;
        Ok(Self { lines, events })
    }

    /// Writes the metrics of an optimizer step, numbered from 0; their names are others than `kind`, `step` and `time_s`.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn step(&mut self, step: u64, values: &BTreeMap<String, f64>) -> Result<()> {
        self.write(Kind::Step, step, values)
    }

    /// Writes the metrics of an evaluation after `step` steps; their names are others than `kind`, `step` and `time_s`.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn eval(&mut self, step: u64, values: &BTreeMap<String, f64>) -> Result<()> {
        self.write(Kind::Eval, step, values)
    }

    fn write(&mut self, kind: Kind, step: u64, values: &BTreeMap<String, f64>) -> Result<()> {
        let time_s = now_s();
        if self.lines.append(kind.key(step), &Record { kind, step, time_s, values })? {
            self.events.append(&Scalars { wall_time_s: time_s, step, values })?;
        }
        Ok(())
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reads the scalars of a line back; what is not a number is one that could not be written as such.
fn parse(path: &Path, index: usize, line: &str) -> Result<(f64, u64, BTreeMap<String, f64>)> {
    let refused =
        |error: serde_json::Error| Error::Line { path: path.to_owned(), line: index + 1, reason: error.to_string() };
    let kept: Kept = serde_json::from_str(line).map_err(refused)?;
    let values = kept.values.into_iter().filter(|(name, _)| name != "kind");
    let values = values.map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN))).collect();
    Ok((kept.time_s, kept.step, values))
}

#[cfg(test)]
mod tests;
