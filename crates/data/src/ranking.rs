//! Rankings: a prompt with several answers, best first.

use std::path::Path;

use joust_core::{Prompt, Reply, kind_of};
use serde_json::Value;

use crate::{
    OnError, Result, Skipped,
    chat::{CHAT_COLUMNS, check_columns, joined, prompt, reply_of},
    rows::{Problem, Reading, Row},
};

/// A prompt with two or more answers, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// The prompt.
    pub prompt: Prompt,
    /// The answers, best first.
    pub completions: Vec<Reply>,
}

fn ranking(row: &Row) -> std::result::Result<Ranking, Problem> {
    check_columns(row)?;
    let list = match row.column("completions")? {
        Value::Array(list) if list.len() >= 2 => list,
        Value::Array(list) => {
            return Err(format!("column completions holds {} answers, a ranking needs 2 or more", list.len()));
        }
        other => return Err(format!("column completions is a list of answers, found {}", kind_of(other))),
    };
    let asked = prompt(row, "prompt")?;
    let mut completions = Vec::with_capacity(list.len());
    let mut shared = None;
    for value in list {
        let (prompt, completion) = joined(row, asked.clone(), reply_of(value, "completions")?)?;
        if shared.get_or_insert_with(|| prompt.clone()) != &prompt {
            return Err("column completions holds answers to different prompts".into());
        }
        completions.push(completion);
    }
    Ok(Ranking { prompt: shared.unwrap_or(asked), completions })
}

/// Reads rankings: `prompt` and `completions`, a list of texts or of lists of messages, best first.
///
/// # Errors
/// [`crate::Error::Row`] with the line, [`crate::Error::Empty`] if nothing is left.
pub fn read_rankings(path: &Path, on_error: OnError) -> Result<(Vec<Ranking>, Skipped)> {
    let mut reading = Reading::new(path, on_error);
    let columns = [&["prompt", "completions"][..], &CHAT_COLUMNS].concat();
    let rows = reading.parse(&columns, ranking)?.into_iter().map(|(_, row)| row).collect();
    reading.some(rows, "rows with `prompt` and `completions`")
}
