//! Data files as rows of JSON: JSONL line by line, Parquet through Arrow; then rows as prompts.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use joust_core::{Message, Prompt};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// What a bad row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It ends the reading.
    Fail,
    /// It is left out and counted.
    Skip,
}

/// Rows left out, by reason.
pub type Skipped = BTreeMap<String, usize>;

/// Reads a file's rows as (line from 1, object).
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] for a Parquet file that is not one, [`Error::Row`] for a line that is not an object
/// (under [`OnError::Skip`] it is counted instead).
pub fn read_rows(path: &Path, on_error: OnError, skipped: &mut Skipped) -> Result<Vec<(usize, Value)>> {
    let text = if path.extension().is_some_and(|ext| ext == "parquet") { parquet_lines(path)? } else { jsonl(path)? };
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row = match serde_json::from_str::<Value>(line) {
            Ok(row) if row.is_object() => Ok(row),
            Ok(other) => Err(format!("expected an object, found {}", shorten(&other.to_string()))),
            Err(error) => Err(format!("not valid JSON ({error}): {}", shorten(line))),
        };
        match row {
            Ok(row) => rows.push((index + 1, row)),
            Err(problem) => refuse(path, index + 1, problem, (on_error, skipped))?,
        }
    }
    Ok(rows)
}

fn jsonl(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|error| Error::Format {
        path: path.into(),
        format: "JSONL",
        reason: error.to_string(),
    })
}

fn parquet_lines(path: &Path) -> Result<String> {
    let broken = |reason: String| Error::Format { path: path.into(), format: "Parquet", reason };
    let file = File::open(path).map_err(Error::io("read", path))?;
    let reader = SerializedFileReader::new(file).map_err(|error| broken(error.to_string()))?;
    let mut lines = String::new();
    for row in reader.get_row_iter(None).map_err(|error| broken(error.to_string()))? {
        lines += &object(&row.map_err(|error| broken(error.to_string()))?).to_string();
        lines.push('\n');
    }
    Ok(lines)
}

fn object(row: &Row) -> Value {
    let columns = row.get_column_iter().filter(|(_, field)| !matches!(field, Field::Null));
    Value::Object(columns.map(|(name, field)| (name.clone(), json(field))).collect::<Map<_, _>>())
}

fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(value) => value.as_str().into(),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::Group(row) => object(row),
        other => other.to_string().into(),
    }
}

/// Counts a bad row, or ends the reading with it.
pub(crate) fn refuse(
    path: &Path,
    line: usize,
    problem: String,
    (on_error, skipped): (OnError, &mut Skipped),
) -> Result<()> {
    match on_error {
        OnError::Fail => Err(Error::Row { path: path.into(), line, problem }),
        OnError::Skip => {
            let reason = problem.split([':', '(']).next().unwrap_or_default().trim().to_owned();
            *skipped.entry(reason).or_default() += 1;
            Ok(())
        }
    }
}

/// Cuts a value for a message.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(77).collect::<String>() + "..." }
}

/// Reads a list of chat messages.
pub(crate) fn messages(value: &Value) -> std::result::Result<Vec<Message>, String> {
    let list: Vec<Message> = serde_json::from_value(value.clone()).map_err(|error| {
        format!("messages need a role and a text content ({error}): {}", shorten(&value.to_string()))
    })?;
    if list.is_empty() { Err("the list of messages is empty".into()) } else { Ok(list) }
}

/// Reads a prompt: text that is not empty, or messages.
pub(crate) fn prompt(value: &Value) -> std::result::Result<Prompt, String> {
    match value {
        Value::String(text) if text.is_empty() => Err("the prompt is empty".into()),
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(_) => messages(value).map(Prompt::Chat),
        other => Err(format!("a prompt is text or a list of messages, found {}", shorten(&other.to_string()))),
    }
}

fn prompt_of(row: &Value) -> std::result::Result<Prompt, String> {
    if let Some(value) = row.get("prompt") {
        return prompt(value);
    }
    let Some(value) = row.get("messages") else {
        let keys: Vec<&str> = row.as_object().into_iter().flat_map(|row| row.keys().map(String::as_str)).collect();
        return Err(format!("neither prompt nor messages among the columns {}", shorten(&keys.join(", "))));
    };
    let mut list = messages(value)?;
    while list.last().is_some_and(|message| message.role == "assistant") {
        list.pop();
    }
    if list.is_empty() { Err("messages hold nothing but the assistant's".into()) } else { Ok(Prompt::Chat(list)) }
}

/// Reads prompts from `prompt` (text or messages) or `messages` (what comes before a final answer).
///
/// # Returns
/// (row from 0, prompt) in file order, and what was skipped.
///
/// # Errors
/// [`Error::Row`] with the line, [`Error::Empty`] if nothing is left.
pub fn read_prompts(path: &Path, on_error: OnError) -> Result<(Vec<(u64, Prompt)>, Skipped)> {
    let mut skipped = Skipped::new();
    let mut prompts = Vec::new();
    for (line, row) in read_rows(path, on_error, &mut skipped)? {
        match prompt_of(&row) {
            Ok(prompt) => prompts.push((line as u64 - 1, prompt)),
            Err(problem) => refuse(path, line, problem, (on_error, &mut skipped))?,
        }
    }
    if prompts.is_empty() {
        let expected = "rows with `prompt` or `messages`";
        return Err(Error::Empty { path: path.into(), skipped: skipped.values().sum(), expected });
    }
    Ok((prompts, skipped))
}
