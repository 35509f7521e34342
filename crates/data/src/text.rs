//! Supervised data: `prompt` with `completion`, `messages`, or plain `text`.

use std::path::Path;

use joust_core::Prompt;
use serde_json::Value;

use crate::{
    Error, OnError, Result, Skipped, read_rows,
    rows::{messages, prompt, refuse, shorten},
};

/// A prompt with the answer to learn.
#[derive(Debug, Clone, PartialEq)]
pub struct Supervised {
    /// What comes before; `None` for plain text, all of which is learned.
    pub prompt: Option<Prompt>,
    /// Text of the answer; the loss is on it alone.
    pub completion: String,
}

fn text(row: &Value, name: &str) -> std::result::Result<String, String> {
    match row.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(other) => Err(format!("{name} must be text that is not empty, found {}", shorten(&other.to_string()))),
        None => Err(format!("column {name} is missing")),
    }
}

fn supervised(row: &Value) -> std::result::Result<Option<Supervised>, String> {
    if row.get("label").and_then(Value::as_bool) == Some(false) {
        return Ok(None); // an answer marked bad is not one to imitate
    }
    if let Some(value) = row.get("prompt") {
        let prompt = Some(prompt(value)?);
        return Ok(Some(Supervised { prompt, completion: text(row, "completion")? }));
    }
    if let Some(value) = row.get("messages") {
        let mut list = messages(value)?;
        return match list.pop() {
            Some(last) if last.role == "assistant" && !list.is_empty() => {
                Ok(Some(Supervised { prompt: Some(Prompt::Chat(list)), completion: last.content }))
            }
            _ => Err("messages must end with the assistant's after at least one other".into()),
        };
    }
    Ok(Some(Supervised { prompt: None, completion: text(row, "text")? }))
}

/// Reads supervised examples from JSONL or Parquet.
///
/// # Errors
/// [`Error::Row`] with the line, [`Error::Empty`] if nothing is left.
pub fn read_supervised(path: &Path, on_error: OnError) -> Result<(Vec<Supervised>, Skipped)> {
    let mut skipped = Skipped::new();
    let mut examples = Vec::new();
    for (line, row) in read_rows(path, on_error, &mut skipped)? {
        match supervised(&row) {
            Ok(Some(example)) => examples.push(example),
            Ok(None) => *skipped.entry("label is false".into()).or_default() += 1,
            Err(problem) => refuse(path, line, problem, (on_error, &mut skipped))?,
        }
    }
    if examples.is_empty() {
        let expected = "rows with `prompt` and `completion`, `messages`, or `text`";
        return Err(Error::Empty { path: path.into(), skipped: skipped.values().sum(), expected });
    }
    Ok((examples, skipped))
}

/// Returns every text of supervised examples, for training a tokenizer.
pub fn read_texts(examples: &[Supervised]) -> Vec<String> {
    let prompts = examples.iter().filter_map(|example| example.prompt.as_ref()).map(Prompt::display);
    prompts.chain(examples.iter().map(|example| example.completion.clone())).collect()
}
