//! Preference data: `prompt`, `chosen`, `rejected`, or the last two alone with a prompt that they share.

use std::path::Path;

use joust_core::{Message, Prompt};
use serde_json::Value;

use crate::{
    Error, OnError, Result, Skipped, read_rows,
    rows::{messages, prompt, refuse, shorten},
};

/// A prompt with a better and a worse answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// The prompt.
    pub prompt: Prompt,
    /// Text of the better answer.
    pub chosen: String,
    /// Text of the worse answer.
    pub rejected: String,
    /// By how much chosen is better, where the data says so.
    pub margin: Option<f64>,
    /// Whose preference it is, where the data says so.
    pub user: Option<String>,
}

/// Reads an answer: text, or messages of which the last is the assistant's.
pub(crate) fn answer(value: &Value, name: &str) -> std::result::Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(_) => match messages(value)?.pop() {
            Some(last) if last.role == "assistant" => Ok(last.content),
            _ => Err(format!("{name} does not end with the assistant's message")),
        },
        other => Err(format!("{name} is text or messages, found {}", shorten(&other.to_string()))),
    }
}

/// Takes the prompt out of two conversations: what both begin with, as TRL's `extract_prompt` does.
fn shared_prompt(chosen: &Value, rejected: &Value) -> std::result::Result<(Prompt, String, String), String> {
    if let (Value::String(chosen), Value::String(rejected)) = (chosen, rejected) {
        let same = chosen.char_indices().zip(rejected.chars()).take_while(|((_, a), b)| a == b);
        let mut end = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
        if chosen[..end].ends_with(' ') {
            end -= 1; // the space belongs to the answers' first words
        }
        if end == 0 {
            return Err("chosen and rejected share no beginning that could be the prompt".into());
        }
        return Ok((Prompt::Text(chosen[..end].to_owned()), chosen[end..].to_owned(), rejected[end..].to_owned()));
    }
    let (first, second): (Vec<Message>, Vec<Message>) = (messages(chosen)?, messages(rejected)?);
    let shared = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
    let (shared, limit) = (shared, first.len().min(second.len()).saturating_sub(1));
    let prompt = first[..shared.min(limit)].to_vec();
    if prompt.is_empty() {
        return Err("chosen and rejected share no first message that could be the prompt".into());
    }
    Ok((Prompt::Chat(prompt), answer(chosen, "chosen")?, answer(rejected, "rejected")?))
}

fn preference(row: &Value) -> std::result::Result<Preference, String> {
    let column = |name: &str| row.get(name).ok_or_else(|| format!("column {name} is missing"));
    let (chosen, rejected) = (column("chosen")?, column("rejected")?);
    let margin = row.get("margin").and_then(Value::as_f64);
    let user = match row.get("user") {
        Some(Value::String(user)) => Some(user.clone()),
        Some(Value::Number(user)) => Some(user.to_string()),
        _ => None,
    };
    let (prompt, chosen, rejected) = match row.get("prompt") {
        Some(value) => (prompt(value)?, answer(chosen, "chosen")?, answer(rejected, "rejected")?),
        None => shared_prompt(chosen, rejected)?,
    };
    if chosen == rejected {
        return Err("chosen and rejected are the same".into());
    }
    Ok(Preference { prompt, chosen, rejected, margin, user })
}

/// Reads preference pairs from JSONL or Parquet.
///
/// # Errors
/// [`Error::Row`] with the line, [`Error::Empty`] if nothing is left.
pub fn read_preferences(path: &Path, on_error: OnError) -> Result<(Vec<Preference>, Skipped)> {
    let mut skipped = Skipped::new();
    let mut pairs = Vec::new();
    for (line, row) in read_rows(path, on_error, &mut skipped)? {
        match preference(&row) {
            Ok(pair) => pairs.push(pair),
            Err(problem) => refuse(path, line, problem, (on_error, &mut skipped))?,
        }
    }
    if pairs.is_empty() {
        let expected = "rows with `prompt`, `chosen` and `rejected`";
        return Err(Error::Empty { path: path.into(), skipped: skipped.values().sum(), expected });
    }
    Ok((pairs, skipped))
}
