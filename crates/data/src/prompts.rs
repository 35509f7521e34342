//! Prompt files: `prompt` (text or messages), or `messages` of which the answer is left away.

use std::path::Path;

use joust_core::Prompt;

use crate::{
    OnError, Result, Skipped,
    chat::{CHAT_COLUMNS, chat, check_columns, messages, prompt},
    rows::{Problem, Reading, Row},
};

fn prompt_of(row: &Row) -> std::result::Result<Prompt, Problem> {
    check_columns(row)?;
    if row.get("prompt").is_some() {
        return prompt(row, "prompt");
    }
    let name = if row.get("messages").is_some() { "messages" } else { "conversations" };
    let Some(value) = row.get(name) else {
        return Err(format!("neither prompt nor messages among the columns that are set: {}", row.names()));
    };
    let mut list = messages(value, name)?;
    while list.last().is_some_and(|message| message.role() == "assistant") {
        list.pop();
    }
    if list.is_empty() {
        return Err(format!("column {name} holds nothing but the assistant's messages"));
    }
    Ok(Prompt::Chat(chat(row, list)?))
}

/// Reads prompts from `prompt` (text or messages; one that ends with the assistant's message is
/// continued) or `messages` (what comes before a final answer).
///
/// # Returns
/// (row from 0, prompt) in file order, and what was skipped.
///
/// # Errors
/// [`crate::Error::Row`] with the line, [`crate::Error::Empty`] if nothing is left.
pub fn read_prompts(path: &Path, on_error: OnError) -> Result<(Vec<(u64, Prompt)>, Skipped)> {
    let mut reading = Reading::new(path, on_error);
    let columns = [&["prompt", "messages", "conversations"][..], &CHAT_COLUMNS].concat();
    let prompts = reading.parse(&columns, prompt_of)?;
    let prompts = prompts.into_iter().map(|(line, prompt)| (line as u64 - 1, prompt)).collect();
    reading.some(prompts, "rows with `prompt` or `messages`")
}
