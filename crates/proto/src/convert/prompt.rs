//! Prompts and chat messages, whose further fields travel as JSON.

use joust_core::{Chat, Message, Prompt};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    common::v1 as wire,
    limits::MAX_ANSWERS,
    parse::{list, name, text},
};

impl From<Prompt> for wire::Prompt {
    fn from(prompt: Prompt) -> Self {
        let kind = match prompt {
            Prompt::Text(text) => wire::prompt::Kind::Text(text),
            Prompt::Chat(chat) => wire::prompt::Kind::Chat(chat.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Prompt> for Prompt {
    type Error = Error;
    fn try_from(prompt: wire::Prompt) -> Result<Self> {
        match prompt.kind {
            None => Err(Error::missing("kind", "text or chat")),
            Some(wire::prompt::Kind::Text(value)) => Ok(Self::Text(text("text", value)?)),
            Some(wire::prompt::Kind::Chat(chat)) => {
                Ok(Self::Chat(chat.try_into().map_err(|error: Error| error.at("chat"))?))
            }
        }
    }
}

impl From<Chat> for wire::Chat {
    fn from(chat: Chat) -> Self {
        let json = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
        Self {
            messages: chat.messages.into_iter().map(Into::into).collect(),
            tools: json(chat.tools),
            documents: json(chat.documents),
            chat_template_kwargs: json(chat.chat_template_kwargs.map(Value::Object)),
        }
    }
}

impl TryFrom<wire::Chat> for Chat {
    type Error = Error;
    fn try_from(chat: wire::Chat) -> Result<Self> {
        let kwargs = match json("chat_template_kwargs", chat.chat_template_kwargs, Value::is_object)? {
            Some(Value::Object(kwargs)) => Some(kwargs),
            _ => None,
        };
        Ok(Self {
            messages: list("messages", chat.messages, 1..=MAX_ANSWERS)?,
            tools: json("tools", chat.tools, Value::is_array)?,
            documents: json("documents", chat.documents, Value::is_array)?,
            chat_template_kwargs: kwargs,
        })
    }
}

impl From<Message> for wire::Message {
    fn from(message: Message) -> Self {
        let role = message.role().to_owned();
        match message.plain_text() {
            Some(content) => Self { role, content: content.to_owned(), object: String::new() },
            None => Self { role, content: String::new(), object: Value::Object(message.into()).to_string() },
        }
    }
}

impl TryFrom<wire::Message> for Message {
    type Error = Error;
    fn try_from(message: wire::Message) -> Result<Self> {
        let role = name("role", message.role)?;
        let content = text("content", message.content)?;
        let field = if message.object.is_empty() { "role" } else { "object" };
        let fields: Map<String, Value> = match json("object", message.object, Value::is_object)? {
            Some(Value::Object(fields)) if !content.is_empty() || fields.get("role") != Some(&Value::from(&*role)) => {
                let found = if content.is_empty() { "another role" } else { "both" };
                return Err(Error::value("object", found, "an object with the role of `role`, and no `content`"));
            }
            Some(Value::Object(fields)) => fields,
            _ => Message::new(role, content).into(),
        };
        Self::try_from(fields).map_err(|error| Error::value(field, error, "a chat message"))
    }
}

/// Parses a field of JSON; an empty one is none.
fn json(field: &str, json: String, wanted: fn(&Value) -> bool) -> Result<Option<Value>> {
    if json.is_empty() {
        return Ok(None);
    }
    let found = serde_json::from_str(&text(field, json)?).ok().filter(wanted);
    found.map(Some).ok_or_else(|| {
        let kind = if field == "tools" || field == "documents" { "a JSON list" } else { "a JSON object" };
        Error::value(field, "other text", kind)
    })
}
