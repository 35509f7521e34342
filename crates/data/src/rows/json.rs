//! Rows of JSON: one object a line, or one array of objects.

use std::{
    fmt,
    io::{BufRead, Read},
    sync::Arc,
};

use joust_core::kind_of;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::{Problem, Reading, Row};
use crate::{Error, Result};

/// Longest line, in bytes: more is not a row but a file without line ends.
const MAX_LINE_BYTES: usize = 256 << 20;

/// Reads rows from a file that may begin with a byte order mark.
pub(super) fn rows(reading: &mut Reading<'_>, file: &mut impl BufRead) -> Result<Vec<Row>> {
    let io = |error| Error::io("read", reading.path)(error);
    if file.fill_buf().map_err(io)?.starts_with(b"\xef\xbb\xbf") {
        file.consume(3);
    }
    let mut lines = Lines { file, after_return: false };
    let mut rows = Vec::new();
    let (mut line, mut number) = (Vec::new(), 0);
    while lines.next(&mut line).map_err(|error| Error::io("read", reading.path)(error))? {
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if rows.is_empty() && reading.skipped.is_empty() && begins_array(&line) {
            return array(reading, std::mem::take(&mut line), lines.file, number);
        }
        match object(&line) {
            Ok(values) => rows.push(Row { line: number, values, unread: Arc::default() }),
            Err(problem) => reading.refuse(number, problem)?,
        }
    }
    Ok(rows)
}

fn begins_array(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"[")
}

fn object(line: &[u8]) -> std::result::Result<serde_json::Map<String, Value>, Problem> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("not UTF-8 (at byte {} of the line)", error.valid_up_to() + 1))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(other) => Err(format!("expected an object, found {}", kind_of(&other))),
        Err(error) => Err(syntax(&error)),
    }
}

/// Says where JSON breaks; the parser's words name tokens, and no contents.
fn syntax(error: &serde_json::Error) -> Problem {
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default();
    format!("not valid JSON (column {}: {what})", error.column())
}

/// Reads one array; rows are numbered by element.
fn array(reading: &mut Reading<'_>, first: Vec<u8>, rest: &mut impl BufRead, before: usize) -> Result<Vec<Row>> {
    let broken = |error: serde_json::Error| Error::Format {
        path: reading.path.into(),
        format: "JSON",
        reason: format!("line {}: {}", before - 1 + error.line(), syntax(&error)),
    };
    let begun = std::io::Cursor::new(first).chain(std::io::Cursor::new(b"\n")).chain(rest);
    let mut parser = serde_json::Deserializer::from_reader(begun);
    let values = parser.deserialize_seq(Elements).and_then(|values| parser.end().map(|()| values)).map_err(broken)?;
    let mut rows = Vec::with_capacity(values.len());
    for (line, value) in (1..).zip(values) {
        match value {
            Value::Object(values) => rows.push(Row { line, values, unread: Arc::default() }),
            other => reading.refuse(line, format!("expected an object, found {}", kind_of(&other)))?,
        }
    }
    Ok(rows)
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        Ok(values)
    }
}

/// Cuts at LF, CR LF and CR; no other character ends a line, since JSON text may hold it.
struct Lines<'a, R> {
    file: &'a mut R,
    after_return: bool,
}

impl<R: BufRead> Lines<'_, R> {
    /// Reads the next line without its end; false where there is none.
    fn next(&mut self, line: &mut Vec<u8>) -> std::io::Result<bool> {
        line.clear();
        loop {
            let bytes = self.file.fill_buf()?;
            if bytes.is_empty() {
                return Ok(!line.is_empty());
            }
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                self.file.consume(1);
                continue;
            }
            if let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                line.extend_from_slice(&bytes[..end]);
                self.after_return = bytes[end] == b'\r';
                self.file.consume(end + 1);
                return Ok(true);
            }
            let all = bytes.len();
            line.extend_from_slice(bytes);
            self.file.consume(all);
            if line.len() > MAX_LINE_BYTES {
                return Err(std::io::Error::other(format!("a line is longer than {MAX_LINE_BYTES} bytes")));
            }
        }
    }
}
