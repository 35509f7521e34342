//! Errors of templates; they name places and kinds, and never what a conversation says.

use std::path::Path;

use serde_json::Value;

use super::{Conversation, jinja::Fault};
use crate::Error;

/// Most characters of a text that a template gives to `raise_exception`.
const MAX_RAISED: usize = 200;

/// Makes the error of a fault; `given` is what was rendered, by which source.
pub(super) fn error(folder: &Path, name: &str, fault: &Fault, given: Option<(&Conversation, &str)>) -> Error {
    let line = fault.line.map(|line| format!(", line {line}")).unwrap_or_default();
    let raised = match (&fault.raised, given) {
        (Some(text), Some((conversation, source))) => format!(": {}", harmless(text, conversation, source)),
        _ => String::new(),
    };
    Error::Template { path: folder.into(), reason: format!("template {name}{line}: {}{raised}", fault.reason) }
}

/// Returns a raised text without what is the conversation's.
///
/// Words that the template's source does not have come from the conversation, so they are left out; a text that has the
/// content of a message as it is, is left out whole.
fn harmless(text: &str, conversation: &Conversation, source: &str) -> String {
    let parts = [conversation.tools, conversation.documents];
    let values = conversation.messages.iter().chain(parts.into_iter().flatten());
    if values.clone().any(|value| quoted(value, text)) {
        return "(its text is left out: it quotes the conversation)".into();
    }
    let words = text.split_whitespace().map(|word| if source.contains(word) { word } else { "…" });
    let mut words: Vec<&str> = words.collect();
    words.dedup_by(|next, before| *next == "…" && *before == "…");
    words.join(" ").chars().take(MAX_RAISED).collect()
}

/// Shortest content whose quotation is looked for; shorter ones stand in every text.
const MIN_QUOTED: usize = 4;

/// Returns whether a text has one of a value's texts in it, other than a role or a type.
fn quoted(value: &Value, text: &str) -> bool {
    match value {
        Value::String(content) => {
            let content = content.trim();
            content.chars().count() >= MIN_QUOTED && text.contains(content)
        }
        Value::Array(items) => items.iter().any(|item| quoted(item, text)),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key != "role" && key != "type" && quoted(value, text))
        }
        _ => false,
    }
}
