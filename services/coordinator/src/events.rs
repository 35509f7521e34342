//! What happens in a run, in order: kept in a file of its own, and watched.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

use joust_core::ModelSet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{Result, error::io};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// What.
    pub what: What,
    /// Which start of a learner told it, and its place among what that told; `None` for what the coordinator knows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<(String, u64)>,
}

/// What can happen in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is in another state.
    State {
        /// Which, by name.
        state: String,
        /// Why.
        reason: String,
    },
    /// A step is done.
    Step {
        /// Which, from 0.
        step: u64,
        /// Metrics by name.
        metrics: BTreeMap<String, f64>,
        /// Prompts without an example, by reason.
        dropped: BTreeMap<String, u64>,
        /// Whether it was replayed.
        recovered: bool,
    },
    /// An evaluation is done.
    Evaluation {
        /// Steps that were done.
        steps_done: u64,
        /// Metrics by name.
        metrics: BTreeMap<String, f64>,
    },
    /// A checkpoint is durable.
    Checkpoint {
        /// Its name.
        checkpoint: String,
        /// Steps that it covers.
        steps_done: u64,
    },
    /// Models are published.
    Models(ModelSet),
}

/// The events of one run; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct EventLog {
    told: Arc<Mutex<(Vec<Told>, File)>>,
    count: watch::Sender<usize>,
}

impl EventLog {
    /// Opens the log of a run, made if missing. A last line that a kill cut is left out; any other that is damaged is told and left out.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path).map_err(io("open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read", path))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut told = Vec::new();
        for (index, line) in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            match serde_json::from_slice(line) {
                Ok(event) => told.push(event),
                Err(error) => {
                    tracing::error!(path = %path.display(), line = index + 1, %error, "a damaged event is left out");
                }
            }
        }
        file.set_len(whole as u64).map_err(io("cut", path))?;
        let count = watch::Sender::new(told.len());
        Ok(Self { told: Arc::new(Mutex::new((told, file))), count })
    }

    /// Adds an event. It outlives the process; the machine's loss of power may take the newest.
    pub(crate) fn add(&self, event: Told) -> Result<()> {
        let mut told = self.told.lock();
        let mut line = serde_json::to_vec(&event).expect("events hold only plain data");
        line.push(b'\n');
        let whole = told.1.metadata().map_err(io("look at", "the run's events"))?.len();
        if let Err(error) = told.1.write_all(&line) {
            // Half a line would take the next one with it.
            let _ = told.1.set_len(whole);
            return Err(io("write", "the run's events")(error));
        }
        told.0.push(event);
        self.count.send_replace(told.0.len());
        Ok(())
    }

    /// Returns the events behind a position, and wakes with the count of those that are there.
    pub(crate) fn after(&self, position: usize) -> Vec<Told> {
        self.told.lock().0.iter().skip(position).cloned().collect()
    }

    /// Returns the place of the last event that each start of a learner told.
    pub(crate) fn heard(&self) -> BTreeMap<String, u64> {
        self.told.lock().0.iter().filter_map(|told| told.by.clone()).collect()
    }

    /// Returns the number of events as it grows.
    pub(crate) fn watch(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Returns the state that was told last.
    pub(crate) fn last_state(&self) -> Option<(String, String)> {
        self.told.lock().0.iter().rev().find_map(|told| match &told.what {
            What::State { state, reason } => Some((state.clone(), reason.clone())),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str) -> Told {
        Told { at_ms: 1, what: What::State { state: name.into(), reason: String::new() }, by: None }
    }

    #[test]
    fn events_outlive_the_process_but_for_a_cut_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let log = EventLog::open(&path).expect("opened");
        log.add(state("pending")).and_then(|()| log.add(state("running"))).expect("written");
        drop(log);
        let whole = std::fs::read(&path).expect("there");
        std::fs::write(&path, &whole[..whole.len() - 3]).expect("cut");
        let log = EventLog::open(&path).expect("opened again");
        assert_eq!(log.after(0), [state("pending")]);
        log.add(state("done")).expect("written");
        assert_eq!(EventLog::open(&path).expect("a third time").after(1), [state("done")]);
        assert_eq!(log.last_state().map(|(state, _)| state), Some("done".into()));
        // One in the middle that is damaged takes no other with it.
        let mut whole = std::fs::read(&path).expect("there");
        whole[0] = b'!';
        std::fs::write(&path, whole).expect("damaged");
        assert_eq!(EventLog::open(&path).expect("a fourth time").after(0), [state("done")]);
    }
}
