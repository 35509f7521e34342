//! Prompts that users add to a run: durable, each at a place of its own in the run's stream.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use joust_core::{Prompt, PromptTask};
use joust_proto::{Failure, Reason};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    Error, PromptSource, Result,
    error::{io, sync_folder},
    prompts::{PromptStream, id_at},
};

/// One call that added prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Call {
    /// Names it.
    key: String,
    /// Position of its first prompt.
    from: u64,
    prompts: Vec<Prompt>,
}

/// The prompts that were added to one run, in the order of their positions; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Added {
    path: PathBuf,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Added {
    /// Reads what was added. A last line that a kill cut was never answered for, and is left out.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("read", &path)(error)),
            _ => {}
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let damaged = |error: serde_json::Error| Error::State { path: path.clone(), reason: error.to_string() };
        let calls = lines.map(serde_json::from_slice).collect::<std::result::Result<_, _>>().map_err(damaged)?;
        if whole < bytes.len() {
            let file = OpenOptions::new().write(true).open(&path).map_err(io("open", &path))?;
            file.set_len(whole as u64).map_err(io("cut", &path))?;
        }
        Ok(Self { path, calls: Arc::new(Mutex::new(calls)) })
    }

    /// Finds the position that a call's prompts have, if it was made before.
    ///
    /// # Errors
    /// A [`Failure`] if its key named other prompts.
    fn known(&self, key: &str, prompts: &[Prompt]) -> Result<Option<u64>, Failure> {
        let calls = self.calls.lock();
        let Some(known) = calls.iter().find(|call| call.key == key) else { return Ok(None) };
        if known.prompts == prompts {
            return Ok(Some(known.from));
        }
        let text = "the idempotency key came with other prompts before; give each call its own";
        Err(Failure::new(Reason::KeyReused, text))
    }

    /// Returns the first position behind all that were added.
    pub(crate) fn end(&self) -> u64 {
        self.calls.lock().last().map_or(0, Call::end)
    }

    /// Adds prompts at the first positions that are free: behind `released`, before which all may be under way, and behind those added
    /// before; returns the first. A repeat of a call finds what the first did, whatever `places` says: `released` and the run's positions.
    ///
    /// # Errors
    /// What `places` says, or a [`Failure`] if the positions are too few, the key named other prompts, or the disk takes no more.
    pub(crate) fn add(
        &self,
        key: &str,
        prompts: Vec<Prompt>,
        places: impl FnOnce() -> Result<(u64, u64), Failure>,
    ) -> Result<u64, Failure> {
        if let Some(known) = self.known(key, &prompts)? {
            return Ok(known);
        }
        let (released, total) = places()?;
        let mut calls = self.calls.lock();
        let from = calls.last().map_or(0, Call::end).max(released);
        let (left, count) = (total.saturating_sub(from), prompts.len() as u64);
        if count > left {
            let text =
                format!("{count} prompts came, the run's steps have places for {left} more; set learner.steps higher");
            return Err(Failure::new(Reason::OutOfRange, text));
        }
        let call = Call { key: key.to_owned(), from, prompts };
        write(&self.path, &call).map_err(crate::service::broken)?;
        calls.push(call);
        Ok(from)
    }

    /// Returns the prompt that was added at a position and its place among all that were, or how many were added before it.
    fn at(&self, position: u64) -> std::result::Result<(Prompt, u64), u64> {
        let calls = self.calls.lock();
        let mut before = 0;
        for call in calls.iter().take_while(|call| call.from <= position) {
            if position < call.end() {
                let index = position - call.from;
                return Ok((call.prompts[index as usize].clone(), before + index));
            }
            before += call.prompts.len() as u64;
        }
        Err(before)
    }
}

impl Call {
    /// Returns the first position behind it.
    fn end(&self) -> u64 {
        self.from + self.prompts.len() as u64
    }
}

/// Writes a call behind the others; it outlives a loss of power.
fn write(path: &Path, call: &Call) -> Result<()> {
    let mut line = serde_json::to_vec(call).expect("calls hold only plain data");
    line.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(io("open", path))?;
    let whole = file.metadata().map_err(io("look at", path))?.len();
    let written = file.write_all(&line).and_then(|()| file.sync_all());
    let written = written.and_then(|()| if whole == 0 { sync_folder(path) } else { Ok(()) });
    written.map_err(|error| {
        // Half a line would take the next one with it.
        let _ = file.set_len(whole);
        io("write", path)(error)
    })
}

/// A run's prompts with those that were added between them: they take places of their own, and the others come after.
pub(crate) struct WithAdded {
    pub(crate) stream: PromptStream,
    pub(crate) added: Added,
}

impl PromptSource for WithAdded {
    fn task(&self, position: u64) -> PromptTask {
        match self.added.at(position) {
            Ok((prompt, place)) => PromptTask { row: self.stream.rows() + place, prompt, ..self.stream.task(position) },
            Err(before) => {
                let id = id_at(self.stream.run(), position);
                PromptTask { id, position, ..self.stream.task(position - before) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use joust_core::RunId;
    use joust_data::{PromptSet, SetOptions};

    use super::*;

    fn text(word: &str) -> Prompt {
        Prompt::Text(word.into())
    }

    fn added(folder: &Path) -> Added {
        std::fs::create_dir_all(folder.join("prompts")).expect("made");
        Added::open(folder.join("prompts/r.jsonl")).expect("opened")
    }

    #[test]
    fn added_prompts_have_places_of_their_own_and_the_others_come_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = RunId::new("r").expect("a name");
        let rows: Vec<(u64, Prompt)> = (0..4).map(|row| (row, text(&row.to_string()))).collect();
        let options = SetOptions { seed: 0, shuffle: false, eval_fraction: 0.0 };
        let stream = PromptStream::new(run.clone(), PromptSet::new(rows, None, options).expect("a set"));
        let added = added(folder.path());
        let source = WithAdded { stream, added: added.clone() };
        assert_eq!(added.add("a", vec![text("x"), text("y")], || Ok((2, 12))).expect("added"), 2);
        // Nothing more was released meanwhile; one call later, all of it.
        assert_eq!(added.add("b", vec![text("z")], || Ok((2, 12))).expect("added"), 4);
        assert_eq!(added.add("c", vec![text("w")], || Ok((8, 12))).expect("added"), 8);
        let tasks: Vec<PromptTask> = (0..11).map(|position| source.task(position)).collect();
        let words: Vec<&str> =
            tasks.iter().map(|task| if let Prompt::Text(text) = &task.prompt { text.as_str() } else { "" }).collect();
        assert_eq!(words, ["0", "1", "x", "y", "z", "2", "3", "0", "w", "1", "2"]);
        assert_eq!(tasks.iter().map(|task| task.row).collect::<Vec<_>>(), [0, 1, 4, 5, 6, 2, 3, 0, 7, 1, 2]);
        assert!(
            tasks.iter().enumerate().all(|(at, task)| task.position == at as u64 && task.id == id_at(&run, at as u64))
        );
        assert_eq!(tasks[7].epoch, 1);
    }

    #[test]
    fn a_call_is_applied_once_and_outlives_the_process_but_for_a_cut_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = added(folder.path());
        assert_eq!(first.add("a", vec![text("x")], || Ok((4, 6))).expect("added"), 4);
        let ended = || Err(Failure::new(Reason::WrongState, "it ended"));
        assert_eq!(first.add("a", vec![text("x")], ended).expect("the same"), 4);
        let reason = |found: Result<u64, Failure>| found.map_err(|failure| failure.reason());
        assert_eq!(reason(first.add("a", vec![text("y")], || Ok((4, 6)))), Err(Reason::KeyReused));
        assert_eq!(reason(first.add("b", vec![text("y"); 2], || Ok((4, 6)))), Err(Reason::OutOfRange));
        assert_eq!(first.add("b", vec![text("y")], || Ok((4, 6))).expect("added"), 5);
        let path = folder.path().join("prompts/r.jsonl");
        let whole = std::fs::read(&path).expect("there");
        std::fs::write(&path, &whole[..whole.len() - 3]).expect("cut");
        let again = added(folder.path());
        assert_eq!(again.at(4).expect("kept").0, text("x"));
        assert_eq!(again.at(5), Err(1));
        assert_eq!(again.add("b", vec![text("y")], || Ok((4, 6))).expect("added"), 5);
        assert_eq!(added(folder.path()).at(5).expect("kept").0, text("y"));
    }
}
