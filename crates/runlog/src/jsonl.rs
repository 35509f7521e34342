//! JSONL files with one object a step that stay free of half lines and doubles when a run is killed and resumed.

use std::{
    collections::HashSet,
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    error::io,
    files::{AppendFile, replace},
};

/// What a line is about; a file holds each key once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct Key {
    /// Kind of the record; absent in files that hold one kind only.
    #[serde(default)]
    pub(crate) kind: Option<String>,
    /// Step that the record belongs to.
    pub(crate) step: u64,
}

/// An open file that takes each key once.
#[derive(Debug)]
pub(crate) struct JsonlFile {
    file: AppendFile,
    seen: HashSet<Key>,
}

impl JsonlFile {
    /// Opens `path` and returns it with the lines that it keeps: none without `keep`, else those whose key passes.
    ///
    /// What is left out disappears by temporary file, fsync and rename. A last line without line end (its writer was killed) is
    /// left out, and so is a second line of a key.
    ///
    /// # Errors
    /// [`Error::Line`] for a whole line that is not a record, [`Error::Io`] with the path.
    pub(crate) fn open(path: PathBuf, keep: Option<&dyn Fn(&Key) -> bool>) -> Result<(Self, Vec<String>)> {
        let mut seen = HashSet::new();
        let mut lines = Vec::new();
        for (line, key) in keep.map(|_| read(&path)).transpose()?.unwrap_or_default() {
            if keep.is_some_and(|keep| keep(&key)) && seen.insert(key) {
                lines.push(line);
            }
        }
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        replace(&path, |file| file.write_all(text.as_bytes()).map_err(io("write", &path)))?;
        Ok((Self { file: AppendFile::open(&path, text.len() as u64)?, seen }, lines))
    }

    /// Appends `record` unless its key is there already; returns whether it did.
    ///
    /// # Errors
    /// [`Error::Io`] with the path; the file then ends with the record before.
    pub(crate) fn append(&mut self, key: Key, record: &impl Serialize) -> Result<bool> {
        if self.seen.contains(&key) {
            return Ok(false);
        }
        let mut line = serde_json::to_vec(record).expect("records hold text keys and plain data, which always encode");
        line.push(b'\n');
        self.file.append(&line)?;
        self.seen.insert(key);
        Ok(true)
    }
}

/// Reads the whole lines of `path` with their keys; a missing file has none.
fn read(path: &Path) -> Result<Vec<(String, Key)>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", path)(error)),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let refused = |index: usize, reason: String| Error::Line { path: path.to_owned(), line: index + 1, reason };
    let mut lines = Vec::new();
    for (index, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let text = std::str::from_utf8(line).map_err(|error| refused(index, error.to_string()))?.trim_end();
        let key = serde_json::from_str(text).map_err(|error| refused(index, error.to_string()))?;
        lines.push((text.to_owned(), key));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(step: u64) -> Key {
        Key { kind: None, step }
    }

    fn record(step: u64) -> serde_json::Value {
        serde_json::json!({ "step": step })
    }

    fn open(path: &Path, from: Option<u64>) -> Result<(JsonlFile, Vec<String>)> {
        let keep = from.map(|from| move |key: &Key| key.step < from);
        JsonlFile::open(path.to_owned(), keep.as_ref().map(|keep| keep as &dyn Fn(&Key) -> bool))
    }

    #[test]
    fn a_cut_last_line_is_dropped_and_a_bad_whole_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.jsonl");
        fs::write(&path, "{\"step\":0}\n{\"step\":1}\n{\"st").expect("written");
        let (mut file, lines) = open(&path, Some(9)).expect("opens");
        assert_eq!(lines, ["{\"step\":0}", "{\"step\":1}"]);
        assert!(file.append(key(2), &record(2)).expect("appended"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n");

        fs::write(&path, "{\"step\":0}\n{\"st\n{\"step\":2}\n").expect("written");
        let error = open(&path, Some(9)).expect_err("refused");
        assert!(matches!(&error, Error::Line { line: 2, .. }), "{error}");
        assert!(error.to_string().contains("x.jsonl"), "{error}");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = open(&folder.path().join("missing/x.jsonl"), None).expect_err("no folder");
        assert!(error.to_string().contains("missing"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A run of `steps` steps that is killed anywhere (also within a line) and resumed from any step that its
        /// file reaches ends with each step once, in order.
        #[test]
        fn kills_and_resumes_leave_each_step_once(kills in prop::collection::vec((1u64..6, 0usize..12, 0u64..4), 1..6)) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("x.jsonl");
            let mut next = 0;
            let mut resume = None;
            for (steps, cut, back) in kills {
                let (mut file, _) = open(&path, resume).expect("opens");
                for step in next..next + steps {
                    prop_assert!(file.append(key(step), &record(step)).expect("appended"));
                    prop_assert!(!file.append(key(step), &record(step)).expect("a double is not written"));
                }
                let bytes = fs::read(&path).expect("read");
                // A kill can cut the last line only: that is what one write call can leave.
                let cut = cut.min(bytes.len());
                let kept = if cut == 0 { bytes.len() } else { bytes.len() - cut.min(bytes.len() - last_line(&bytes)) };
                fs::write(&path, &bytes[..kept]).expect("cut");
                let whole = next + steps - u64::from(kept < bytes.len());
                next = whole.saturating_sub(back);
                resume = Some(next);
            }
            let (_, lines) = open(&path, Some(next)).expect("opens");
            let steps: Vec<u64> = lines.iter().map(|line| serde_json::from_str::<Key>(line).expect("whole").step).collect();
            prop_assert_eq!(&steps, &(0..next).collect::<Vec<_>>());
            prop_assert_eq!(steps.iter().collect::<BTreeSet<_>>().len(), steps.len());
        }
    }

    fn last_line(bytes: &[u8]) -> usize {
        bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
    }
}
