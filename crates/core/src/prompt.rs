//! Prompts: plain text, or a chat whose messages keep every field that their row gives them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Longest role, in bytes.
pub const MAX_ROLE_BYTES: usize = 64;

/// Why an object is no chat message. It names keys and kinds, never contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The role is missing, or not a short text.
    #[error("role is {found}, expected text of 1 to {MAX_ROLE_BYTES} bytes")]
    Role {
        /// Kind of the value.
        found: &'static str,
    },
    /// The content is neither text nor parts.
    #[error("content is {found}, expected text, a list of parts, or null beside tool_calls")]
    Content {
        /// Kind of the value.
        found: &'static str,
    },
    /// There is neither content nor another field that a template could render.
    #[error("content is {found} and no other field is set; write content or tool_calls")]
    Nothing {
        /// `null` or `missing`.
        found: &'static str,
    },
    /// A part of the content is neither text nor an object.
    #[error("content[{index}] is {found}, expected an object with a type")]
    Part {
        /// Index of the part.
        index: usize,
        /// Kind of the value.
        found: &'static str,
    },
}

/// Names the kind of a JSON value, for messages that must not print the value.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// One chat message: an object with `role`, and whatever else the model's chat template reads, in
/// the order of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Message(Map<String, Value>);

impl TryFrom<Map<String, Value>> for Message {
    type Error = MessageError;

    fn try_from(fields: Map<String, Value>) -> Result<Self, MessageError> {
        match fields.get("role") {
            Some(Value::String(role)) if !role.is_empty() && role.len() <= MAX_ROLE_BYTES => {}
            Some(Value::String(role)) if role.is_empty() => return Err(MessageError::Role { found: "empty text" }),
            Some(Value::String(_)) => return Err(MessageError::Role { found: "a longer text" }),
            other => return Err(MessageError::Role { found: other.map_or("missing", kind_of) }),
        }
        match fields.get("content") {
            Some(Value::String(_)) => {}
            Some(Value::Array(parts)) => check_parts(parts)?,
            None | Some(Value::Null) => {
                let found = if fields.contains_key("content") { "null" } else { "missing" };
                let renders = |(key, value): (&String, &Value)| {
                    !matches!(key.as_str(), "role" | "content" | "name" | "tool_call_id") && !value.is_null()
                };
                if !fields.iter().any(renders) {
                    return Err(MessageError::Nothing { found });
                }
            }
            Some(other) => return Err(MessageError::Content { found: kind_of(other) }),
        }
        Ok(Self(fields))
    }
}

fn check_parts(parts: &[Value]) -> Result<(), MessageError> {
    match parts.iter().position(|part| !part.is_object() && !part.is_string()) {
        None => Ok(()),
        Some(index) => Err(MessageError::Part { index, found: kind_of(&parts[index]) }),
    }
}

impl From<Message> for Map<String, Value> {
    fn from(message: Message) -> Self {
        message.0
    }
}

impl Message {
    /// Makes a message of a role and a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let fields = [("role", Value::String(role.into())), ("content", Value::String(content.into()))];
        Self(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Returns the role.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns all fields, `role` and `content` among them.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the content if it is the only field beside the role, and text.
    pub fn plain_text(&self) -> Option<&str> {
        let text = self.0.get("content").and_then(Value::as_str)?;
        (self.0.len() == 2).then_some(text)
    }

    /// Returns the text of the content: of parts that of each, one after the other; empty where
    /// there is none.
    pub fn text(&self) -> Cow<'_, str> {
        match self.0.get("content") {
            Some(Value::String(text)) => Cow::Borrowed(text),
            Some(Value::Array(parts)) => Cow::Owned(parts.iter().map(part_text).collect()),
            _ => Cow::Borrowed(""),
        }
    }

    /// Puts a text before the content.
    #[must_use]
    pub fn preceded_by(mut self, text: &str) -> Self {
        match self.0.get_mut("content") {
            Some(Value::String(content)) => content.insert_str(0, text),
            Some(Value::Array(parts)) => parts.insert(0, json!({ "type": "text", "text": text })),
            _ => drop(self.0.insert("content".into(), text.into())),
        }
        self
    }

    /// Puts a text behind the content.
    #[must_use]
    pub fn followed_by(mut self, text: &str) -> Self {
        match self.0.get_mut("content") {
            Some(Value::String(content)) => content.push_str(text),
            Some(Value::Array(parts)) => parts.push(json!({ "type": "text", "text": text })),
            _ => drop(self.0.insert("content".into(), text.into())),
        }
        self
    }

    /// Renders the message for a reader or a judge: `role: content`, and every other field that is
    /// set on a line of its own.
    pub fn display(&self) -> String {
        let mut shown = format!("{}: {}", self.role(), self.text());
        for (key, value) in &self.0 {
            match value {
                _ if key == "role" || key == "content" => {}
                Value::Null => {}
                Value::String(text) => shown.push_str(&format!("\n{key}: {text}")),
                other => shown.push_str(&format!("\n{key}: {other}")),
            }
        }
        shown
    }
}

fn part_text(part: &Value) -> String {
    match (part, part.get("text")) {
        (Value::String(text), _) | (_, Some(Value::String(text))) => text.clone(),
        _ => format!("[{}]", part.get("type").and_then(Value::as_str).unwrap_or("part")),
    }
}

/// A conversation, and what else its template is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "ChatRecord", into = "ChatRecord")]
pub struct Chat {
    /// The messages in order.
    pub messages: Vec<Message>,
    /// The template's `tools`.
    pub tools: Option<Value>,
    /// The template's `documents`.
    pub documents: Option<Value>,
    /// Further variables of the template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

/// A chat as records hold it: the list of its messages, unless there is more.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it lives while one record is written or read")]
enum ChatRecord {
    Messages(Vec<Message>),
    Full {
        messages: Vec<Message>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tools: Option<Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        documents: Option<Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chat_template_kwargs: Option<Map<String, Value>>,
    },
}

impl From<ChatRecord> for Chat {
    fn from(record: ChatRecord) -> Self {
        match record {
            ChatRecord::Messages(messages) => messages.into(),
            ChatRecord::Full { messages, tools, documents, chat_template_kwargs } => {
                Self { messages, tools, documents, chat_template_kwargs }
            }
        }
    }
}

impl From<Chat> for ChatRecord {
    fn from(chat: Chat) -> Self {
        let Chat { messages, tools, documents, chat_template_kwargs } = chat;
        if tools.is_none() && documents.is_none() && chat_template_kwargs.is_none() {
            return Self::Messages(messages);
        }
        Self::Full { messages, tools, documents, chat_template_kwargs }
    }
}

impl From<Vec<Message>> for Chat {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}

impl Chat {
    /// Returns the chat with these messages behind its own.
    #[must_use]
    pub fn with(&self, messages: impl IntoIterator<Item = Message>) -> Self {
        let mut chat = self.clone();
        chat.messages.extend(messages);
        chat
    }

    /// Returns the chat with a text said by its system: before what the system says, or as a
    /// message of its own.
    #[must_use]
    pub fn instructed(&self, text: &str, separator: &str) -> Self {
        let mut chat = self.clone();
        match chat.messages.first_mut().filter(|first| first.role() == "system") {
            Some(system) => *system = system.clone().preceded_by(&format!("{text}{separator}")),
            None => chat.messages.insert(0, Message::new("system", text)),
        }
        chat
    }

    /// Returns the chat after an answer: a text ends the final message if that is the assistant's,
    /// else it is the assistant's next message.
    #[must_use]
    pub fn answered(&self, reply: &Reply) -> Self {
        let mut chat = self.clone();
        match reply {
            Reply::Messages(messages) => chat.messages.extend(messages.iter().cloned()),
            Reply::Text(text) if self.is_continued() => {
                let last = chat.messages.pop().map(|last| last.followed_by(text));
                chat.messages.extend(last);
            }
            Reply::Text(text) => chat.messages.push(Message::new("assistant", text)),
        }
        chat
    }

    /// Returns whether an answer goes on with the final message, which is the assistant's.
    pub fn is_continued(&self) -> bool {
        self.messages.last().is_some_and(|last| last.role() == "assistant")
    }
}

/// What a model is asked to answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "few are in memory, and each holds texts far larger than itself")]
pub enum Prompt {
    /// Continues the text as it stands.
    Text(String),
    /// Answers the conversation through the model's chat template.
    Chat(Chat),
}

impl Prompt {
    /// Renders the prompt for a reader or a judge: the text, or `role: content` lines.
    pub fn display(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Chat(chat) => chat.messages.iter().map(Message::display).collect::<Vec<_>>().join("\n"),
        }
    }
}

/// An answer to a prompt, as data and people give it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// A text; to a chat the assistant's message.
    Text(String),
    /// Messages behind those of a chat: tool calls, their results, several turns.
    Messages(Vec<Message>),
}

impl Reply {
    /// Renders the answer for a reader or a judge: the text, that of a single plain message, or
    /// `role: content` lines.
    pub fn display(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Messages(messages) => match messages.as_slice() {
                [one] if one.plain_text().is_some() => one.text().into_owned(),
                all => all.iter().map(Message::display).collect::<Vec<_>>().join("\n"),
            },
        }
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
