//! Supervised data: `prompt` with `completion`, `messages`, or plain `text`.

use std::path::Path;

use joust_core::{Chat, Prompt, Reply};

use crate::{
    OnError, Result, Skipped,
    chat::{CHAT_COLUMNS, chat, check_columns, joined, label, messages, prompt, reply, text_prompt},
    rows::{Problem, Reading, Row},
};

/// One example to learn from.
#[derive(Debug, Clone, PartialEq)]
pub enum Supervised {
    /// Plain text, all of which is learned.
    Text(String),
    /// A prompt with the answer to learn.
    Answer {
        /// What comes before.
        prompt: Prompt,
        /// What is learned.
        completion: Reply,
    },
    /// A conversation, of which the assistant's messages are learned.
    Messages(Chat),
}

impl Supervised {
    /// Renders what comes before the answer, by which examples are held out; of plain text its all.
    pub fn asked(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Answer { prompt, .. } => prompt.display(),
            Self::Messages(chat) => {
                let end = chat.messages.iter().rposition(|message| message.role() == "assistant").unwrap_or_default();
                Prompt::Chat(chat.messages[..end].to_vec().into()).display()
            }
        }
    }
}

fn filled(row: &Row, name: &str) -> std::result::Result<Reply, Problem> {
    match reply(row, name)? {
        Reply::Text(text) if text.is_empty() => Err(format!("column {name} is empty")),
        reply => Ok(reply),
    }
}

fn supervised(row: &Row) -> std::result::Result<Option<Supervised>, Problem> {
    check_columns(row)?;
    if let Some(value) = row.get("label")
        && !label(value)?
    {
        return Ok(None); // an answer marked bad is not one to imitate
    }
    if row.get("completion").is_some() {
        let (prompt, completion) = joined(row, prompt(row, "prompt")?, filled(row, "completion")?)?;
        return Ok(Some(Supervised::Answer { prompt, completion }));
    }
    for name in ["messages", "conversations"] {
        let Some(value) = row.get(name) else { continue };
        let list = messages(value, name)?;
        if !list.iter().any(|message| message.role() == "assistant") {
            return Err(format!("column {name} has no message of the assistant to learn"));
        }
        return Ok(Some(Supervised::Messages(chat(row, list)?)));
    }
    if row.get("prompt").is_some() || row.has("completion") {
        row.column("completion")?;
    }
    match row.text("text")? {
        "" => Err("column text is empty".into()),
        text => {
            text_prompt(row, text)?;
            Ok(Some(Supervised::Text(text.to_owned())))
        }
    }
}

/// Reads supervised examples: `prompt` with `completion` (text or messages), `messages`, or `text`;
/// rows whose `label` is false are left out.
///
/// # Errors
/// [`crate::Error::Row`] with the line, [`crate::Error::Empty`] if nothing is left.
pub fn read_supervised(path: &Path, on_error: OnError) -> Result<(Vec<Supervised>, Skipped)> {
    let mut reading = Reading::new(path, on_error);
    let own = ["prompt", "completion", "messages", "conversations", "text", "label"];
    let mut examples = Vec::new();
    for (_, example) in reading.parse(&[&own[..], &CHAT_COLUMNS].concat(), supervised)? {
        match example {
            Some(example) => examples.push(example),
            None => reading.leave_out("label is false"),
        }
    }
    reading.some(examples, "rows with `prompt` and `completion`, `messages`, or `text`")
}

/// Returns every text of supervised examples, for training a tokenizer.
pub fn read_texts(examples: &[Supervised]) -> Vec<String> {
    let texts = |example: &Supervised| match example {
        Supervised::Text(text) => vec![text.clone()],
        Supervised::Answer { prompt, completion } => vec![prompt.display(), completion.display()],
        Supervised::Messages(chat) => chat.messages.iter().map(|message| message.text().into_owned()).collect(),
    };
    examples.iter().flat_map(texts).collect()
}
