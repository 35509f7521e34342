//! The ledger for readers: which examples each step applied, as one line a step.
//!
//! It is not what a resume trusts: that is the checkpoint's ledger and the manifests.

use std::{collections::BTreeMap, path::Path};

use joust_core::{DropReason, RecordId};
use serde::Serialize;

use crate::{
    Result,
    jsonl::{JsonlFile, Key},
};

/// Name of the ledger in a run folder.
const FILE: &str = "ledger.jsonl";

#[derive(Serialize)]
struct Entry<'a> {
    step: u64,
    examples: &'a [RecordId],
    replayed: &'a [RecordId],
    dropped: &'a BTreeMap<DropReason, u64>,
}

/// Writer of `ledger.jsonl` in a run folder: `{"step":0,"examples":[ids],"replayed":[ids],"dropped":{"tie":2}}`.
///
/// Each step stands once; an entry outlives the process when [`Ledger::enter`] has returned.
#[derive(Debug)]
pub struct Ledger(JsonlFile);

impl Ledger {
    /// Opens the ledger of the run folder `dir`, which must exist.
    ///
    /// # Arguments
    /// * `dir` - the run folder.
    /// * `resume_from_step` - `None` starts a new file in place of any that is there; `Some(s)` keeps the entries of steps below s.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path, [`crate::Error::Line`] for a line that is not an entry.
    pub fn open(dir: &Path, resume_from_step: Option<u64>) -> Result<Self> {
        let keep = resume_from_step.map(|from| move |key: &Key| key.step < from);
        let keep = keep.as_ref().map(|keep| keep as &dyn Fn(&Key) -> bool);
        JsonlFile::open(dir.join(FILE), keep).map(|(file, _)| Self(file))
    }

    /// Enters what a step applied; a step that is there already is not entered twice.
    ///
    /// # Arguments
    /// * `step` - optimizer step, from 0.
    /// * `examples` - ids in the order in which they were applied, replayed ones included.
    /// * `replayed` - those among them that an earlier step applied before.
    /// * `dropped` - number of prompts of this step without example, by reason.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub fn enter(
        &mut self,
        step: u64,
        examples: &[RecordId],
        replayed: &[RecordId],
        dropped: &BTreeMap<DropReason, u64>,
    ) -> Result<()> {
        self.0.append(Key { kind: None, step }, &Entry { step, examples, replayed, dropped }).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_keeps_the_steps_done_and_enters_the_rest_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let id = |name: u8| RecordId::derive(&[&[name]]);
        let dropped = BTreeMap::from([(DropReason::Tie, 2)]);
        let mut ledger = Ledger::open(dir.path(), None).expect("opens");
        for step in 0..3 {
            ledger.enter(step, &[id(step as u8), id(9)], &[id(9)], &dropped).expect("entered");
        }
        drop(ledger);
        let mut ledger = Ledger::open(dir.path(), Some(2)).expect("resumes");
        ledger.enter(2, &[id(7)], &[], &BTreeMap::new()).expect("entered");
        ledger.enter(2, &[id(8)], &[], &BTreeMap::new()).expect("not entered twice");
        let text = std::fs::read_to_string(dir.path().join(FILE)).expect("read");
        let line = |step: u8| {
            let (first, other) = (id(step), id(9));
            format!(
                "{{\"step\":{step},\"examples\":[\"{first}\",\"{other}\"],\"replayed\":[\"{other}\"],\"dropped\":{{\"tie\":2}}}}\n"
            )
        };
        let last = format!("{{\"step\":2,\"examples\":[\"{}\"],\"replayed\":[],\"dropped\":{{}}}}\n", id(7));
        assert_eq!(text, format!("{}{}{last}", line(0), line(1)));
    }
}
