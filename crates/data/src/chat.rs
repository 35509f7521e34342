//! Rows as prompts, conversations and answers: what each column means, and which a row must not
//! have.

use joust_core::{Chat, Message, Prompt, Reply, kind_of};
use serde_json::{Map, Value};

use crate::rows::{Problem, Row};

/// Columns that a conversation's template is given beside the messages.
pub(crate) const CHAT_COLUMNS: [&str; 3] = ["tools", "documents", "chat_template_kwargs"];

/// Columns that hold a part of what is to be trained and that no reader reads: a row with one of
/// them says something else than its text.
const UNUSABLE: [&str; 10] = [
    "image",
    "images",
    "video",
    "videos",
    "audio",
    "audios",
    "input_ids",
    "labels",
    "prompt_input_ids",
    "assistant_masks",
];

type Parsed<T> = std::result::Result<T, Problem>;

/// Refuses a row that holds more than text.
pub(crate) fn check_columns(row: &Row) -> Parsed<()> {
    match row.find(&UNUSABLE) {
        None => Ok(()),
        Some(name) => {
            Err(format!("column {name} is not supported; remove it, since the text alone is another example"))
        }
    }
}

/// Reads a list of chat messages; `from` and `value` stand for `role` and `content`, as TRL takes
/// them.
pub(crate) fn messages(value: &Value, column: &str) -> Parsed<Vec<Message>> {
    let Value::Array(list) = value else {
        return Err(format!("column {column} is a list of messages, found {}", kind_of(value)));
    };
    if list.is_empty() {
        return Err(format!("column {column} is an empty list"));
    }
    let one = |(index, value): (usize, &Value)| {
        let Value::Object(fields) = value else {
            return Err(format!("column {column} needs messages (element {index} is {})", kind_of(value)));
        };
        Message::try_from(renamed(fields))
            .map_err(|error| format!("column {column} has a bad message (element {index}): {error}"))
    };
    list.iter().enumerate().map(one).collect()
}

fn renamed(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = fields.clone();
    for (from, to) in [("from", "role"), ("value", "content")] {
        if !fields.contains_key(to)
            && let Some(value) = fields.shift_remove(from)
        {
            fields.insert(to.into(), value);
        }
    }
    fields
}

/// Puts a row's further columns beside the messages of its chat.
pub(crate) fn chat(row: &Row, messages: Vec<Message>) -> Parsed<Chat> {
    let kwargs = match structured(row, "chat_template_kwargs")? {
        None => None,
        Some(Value::Object(kwargs)) => Some(kwargs),
        Some(other) => return Err(format!("column chat_template_kwargs is an object, found {}", kind_of(&other))),
    };
    Ok(Chat { messages, tools: list(row, "tools")?, documents: list(row, "documents")?, chat_template_kwargs: kwargs })
}

fn list(row: &Row, name: &str) -> Parsed<Option<Value>> {
    match structured(row, name)? {
        Some(other) if !other.is_array() => Err(format!("column {name} is a list, found {}", kind_of(&other))),
        found => Ok(found),
    }
}

/// Reads a column of JSON, which files of fixed columns hold as text.
fn structured(row: &Row, name: &str) -> Parsed<Option<Value>> {
    match row.get(name) {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map(Some).map_err(|_| format!("column {name} is text that is not JSON"))
        }
        other => Ok(other.cloned()),
    }
}

/// Reads a column as a prompt: text that is not empty, or messages.
pub(crate) fn prompt(row: &Row, name: &str) -> Parsed<Prompt> {
    match row.column(name)? {
        Value::String(text) if text.is_empty() => Err(format!("column {name} is empty")),
        Value::String(text) => text_prompt(row, text),
        value @ Value::Array(_) => Ok(Prompt::Chat(chat(row, messages(value, name)?)?)),
        other => Err(format!("column {name} is text or a list of messages, found {}", kind_of(other))),
    }
}

/// Makes a prompt of text, which no template renders: tools would not reach the model.
pub(crate) fn text_prompt(row: &Row, text: &str) -> Parsed<Prompt> {
    let set = |name: &&str| row.get(name).is_some_and(|value| *value != Value::Array(Vec::new()));
    match CHAT_COLUMNS.iter().find(|name| set(name)) {
        None => Ok(Prompt::Text(text.to_owned())),
        Some(name) => Err(format!("column {name} needs a prompt of messages, which a template renders")),
    }
}

/// Reads a column as an answer: text, or messages of which the last is the assistant's.
pub(crate) fn reply(row: &Row, name: &str) -> Parsed<Reply> {
    reply_of(row.column(name)?, name)
}

/// Reads a value of a column as an answer.
pub(crate) fn reply_of(value: &Value, name: &str) -> Parsed<Reply> {
    match value {
        Value::String(text) => Ok(Reply::Text(text.clone())),
        value @ Value::Array(_) => {
            let list = messages(value, name)?;
            match list.last().is_some_and(|last| last.role() == "assistant") {
                true => Ok(Reply::Messages(list)),
                false => Err(format!("column {name} does not end with the assistant's message")),
            }
        }
        other => Err(format!("column {name} is text or a list of messages, found {}", kind_of(other))),
    }
}

/// Joins a prompt and an answer into one form: a text before messages is what the user says, and an
/// answer that repeats the whole prompt has it once.
pub(crate) fn joined(row: &Row, prompt: Prompt, reply: Reply) -> Parsed<(Prompt, Reply)> {
    match (prompt, reply) {
        (Prompt::Text(text), Reply::Messages(list)) => match list.iter().position(|message| message.role() == "user") {
            Some(at) if list[at].text().trim() == text.trim() && at + 1 < list.len() => {
                let (before, after) = list.split_at(at + 1);
                Ok((Prompt::Chat(chat(row, before.to_vec())?), Reply::Messages(after.to_vec())))
            }
            Some(at) if list[..at].iter().all(|message| message.role() == "system") => {
                Err("the answer begins with another message of the user than the prompt".into())
            }
            _ => {
                let asked = chat(row, vec![Message::new("user", text)])?;
                Ok((Prompt::Chat(asked), Reply::Messages(list)))
            }
        },
        (Prompt::Chat(chat), Reply::Messages(list)) => {
            let asked = chat.messages.len();
            let again = list.len() > asked && list[..asked] == chat.messages;
            let own = if again { list[asked..].to_vec() } else { list };
            Ok((Prompt::Chat(chat), Reply::Messages(own)))
        }
        (prompt, reply) => Ok((prompt, reply)),
    }
}

/// Reads a number, which may be written as text.
pub(crate) fn number(value: &Value, name: &str) -> Parsed<f64> {
    let found = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = found.filter(|number| number.is_finite());
    number.ok_or_else(|| format!("column {name} is a number, found {}", kind_of(value)))
}

/// Reads a label: whether an answer is a good one.
pub(crate) fn label(value: &Value) -> Parsed<bool> {
    let text = match value {
        Value::Bool(label) => return Ok(*label),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_lowercase(),
        other => return Err(format!("column label is true or false, found {}", kind_of(other))),
    };
    match text.as_str() {
        "true" | "1" | "1.0" => Ok(true),
        "false" | "0" | "0.0" => Ok(false),
        _ => Err(format!("column label is true, false, 1 or 0, found other {}", kind_of(value))),
    }
}
