//! TensorBoard event files: scalars only, hand-encoded, without a protobuf library.
//!
//! See `tensorboard/compat/proto/event.proto` and `summary.proto` of <https://github.com/tensorflow/tensorboard>.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    Result,
    error::io,
    files::{AppendFile, replace},
    tfrecord::frame,
};

/// Part of the name by which TensorBoard knows its files.
const MARK: &str = "tfevents";

/// The scalars of one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalars<'a> {
    /// Seconds since 1970.
    pub(crate) wall_time_s: f64,
    /// Step on the horizontal axis.
    pub(crate) step: u64,
    /// Value by tag.
    pub(crate) values: &'a BTreeMap<String, f64>,
}

/// The one event file of a run.
#[derive(Debug)]
pub(crate) struct EventFile(AppendFile);

impl EventFile {
    /// Writes a new event file with `history` under `folder` and removes the older ones, so that no curve has doubles.
    ///
    /// The new file gets a new name, by its start in seconds since 1970: a TensorBoard that is looking notices it, where it would
    /// go on reading a file of the old name in the middle.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub(crate) fn rebuild<'a>(
        folder: &Path,
        start_s: f64,
        history: impl IntoIterator<Item = Scalars<'a>>,
    ) -> Result<Self> {
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let path = folder.join(format!("events.out.{MARK}.{:010}.joust.{}", start_s as u64, std::process::id()));
        let mut bytes = frame(&version(start_s));
        history.into_iter().for_each(|scalars| bytes.extend(frame(&event(&scalars))));
        replace(&path, |file| file.write_all(&bytes).map_err(io("write", &path)))?;
        for old in event_files(folder)?.into_iter().filter(|old| *old != path) {
            fs::remove_file(&old).map_err(io("remove", &old))?;
        }
        Ok(Self(AppendFile::open(&path, bytes.len() as u64)?))
    }

    /// Appends the scalars of one moment.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub(crate) fn append(&mut self, scalars: &Scalars<'_>) -> Result<()> {
        self.0.append(&frame(&event(scalars)))
    }
}

/// Returns the event files of `folder`, half-written ones of a killed process included.
pub(crate) fn event_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let entry = entry.map_err(io("list", folder))?;
        if entry.file_name().to_string_lossy().contains(MARK) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Appends a base-128 number, lowest digits first.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a length-delimited field (wire type 2).
fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Encodes `Event.wall_time` (field 1, double).
fn wall_time(seconds: f64) -> Vec<u8> {
    [&[1 << 3 | 1][..], &seconds.to_le_bytes()].concat()
}

/// Encodes the event that opens a file: `Event.file_version` (field 3).
fn version(start_s: f64) -> Vec<u8> {
    let mut event = wall_time(start_s);
    bytes_field(&mut event, 3, b"brain.Event:2");
    event
}

/// Encodes `Event { wall_time, step (2), summary (5) { value (1) { tag (1), simple_value (2, float) } } }`.
fn event(scalars: &Scalars<'_>) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars.values {
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | 5);
        entry.extend((*value as f32).to_le_bytes());
        bytes_field(&mut summary, 1, &entry);
    }
    let mut event = wall_time(scalars.wall_time_s);
    event.push(2 << 3);
    varint(&mut event, scalars.step);
    bytes_field(&mut event, 5, &summary);
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_bytes_that_protobuf_gives() {
        // Event(wall_time=1.5, step=300, summary=Summary(value=[Summary.Value(tag="kl", simple_value=0.25)]))
        // .SerializeToString().hex() of tensorboard 2.21.0 (tensorboard.compat.proto).
        let values = BTreeMap::from([("kl".to_owned(), 0.25)]);
        let bytes = event(&Scalars { wall_time_s: 1.5, step: 300, values: &values });
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "09000000000000f83f10ac022a0b0a090a026b6c150000803e");
    }

    #[test]
    fn a_file_opens_with_its_version() {
        let hex: String = version(1.5).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "09000000000000f83f1a0d627261696e2e4576656e743a32");
    }
}
