//! Anthropic HH: dialogues in one text, turns marked by `Human:` and `Assistant:`.

use joust_core::{Message, Reply};

use crate::{
    Preference, Result,
    chat::check_columns,
    preference::{COLUMNS, shared_prompt},
    rows::{Problem, Reading, Row},
};

const MARKS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];

/// Cuts a dialogue into messages.
pub(super) fn turns(text: &str, column: &str) -> std::result::Result<Vec<Message>, Problem> {
    let found = |text: &str| {
        let marks = MARKS.iter().filter_map(|(mark, role)| Some((text.find(mark)?, *mark, *role)));
        marks.min_by_key(|(at, ..)| *at)
    };
    let mut messages = Vec::new();
    let mut rest = text;
    while let Some((at, mark, role)) = found(rest) {
        if messages.is_empty() && !rest[..at].trim().is_empty() {
            return Err(format!("column {column} has text before its first turn"));
        }
        let after = &rest[at + mark.len()..];
        let end = found(after).map_or(after.len(), |(at, ..)| at);
        messages.push(Message::new(role, after[..end].trim()));
        rest = &after[end..];
    }
    match messages.last() {
        Some(last) if last.role() == "assistant" => Ok(messages),
        _ => Err(format!("column {column} is not a dialogue of Human: and Assistant: that the assistant ends")),
    }
}

fn preference(row: &Row) -> std::result::Result<Preference, Problem> {
    check_columns(row)?;
    let messages = |name| turns(row.text(name)?, name).map(Reply::Messages);
    let (chosen, rejected) = (messages("chosen")?, messages("rejected")?);
    if chosen == rejected {
        return Err("chosen and rejected are the same".into());
    }
    shared_prompt(row, chosen, rejected)
}

pub(super) fn preferences(reading: &mut Reading<'_>) -> Result<Vec<Preference>> {
    Ok(reading.parse(&COLUMNS, preference)?.into_iter().map(|(_, pair)| pair).collect())
}
