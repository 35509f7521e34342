//! Chat templates: found as `transformers` finds them, rendered as `transformers` renders them.

mod continued;
mod faults;
mod find;
mod jinja;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{Error, Result};

/// What a template renders.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conversation<'a> {
    /// Messages, each an object with its keys in the order of the row.
    pub messages: &'a [Value],
    /// Tools as JSON schemas, a list; templates see none where absent.
    pub tools: Option<&'a Value>,
    /// Documents, a list of objects; templates see none where absent.
    pub documents: Option<&'a Value>,
    /// Further variables; they win over special tokens.
    pub kwargs: Option<&'a Map<String, Value>>,
}

/// How a conversation ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RenderOptions {
    /// Adds what opens the assistant's turn.
    pub add_generation_prompt: bool,
    /// Cuts behind the final message's content, so that it can be continued.
    pub continue_final_message: bool,
}

/// A rendered conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges of what `{% generation %}` blocks wrote.
    pub assistant: Vec<Range<usize>>,
}

/// A model's chat templates with the special tokens that they may name.
#[derive(Debug, Clone)]
pub(crate) struct ChatTemplate {
    folder: PathBuf,
    templates: Vec<Arc<Named>>,
    tokens: Map<String, Value>,
    clock: jinja::Clock,
}

/// A template with its name.
#[derive(Debug)]
struct Named {
    name: String,
    source: String,
    parsed: jinja::Template,
}

impl ChatTemplate {
    /// Finds the templates of a folder: `chat_template.jinja` and `additional_chat_templates/*.jinja`, else the text or
    /// named list in `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::Template`] for a template that cannot be read or parsed, [`Error::Io`] for a folder that cannot.
    pub(crate) fn find(folder: &Path, config: &Value) -> Result<Option<Self>> {
        let sources = find::sources(folder, config)?;
        if sources.is_empty() {
            return Ok(None);
        }
        let parse = |(name, source): (String, String)| {
            let parsed = jinja::Template::parse(&source).map_err(|fault| faults::error(folder, &name, &fault, None))?;
            Ok(Arc::new(Named { name, source, parsed }))
        };
        let templates = sources.into_iter().map(parse).collect::<Result<_>>()?;
        let tokens = find::special_tokens(folder, config)?;
        Ok(Some(Self { folder: folder.into(), templates, tokens, clock: jinja::Clock::default() }))
    }

    /// Returns whether a template marks the assistant's turns by `{% generation %}`.
    pub(crate) fn has_generation(&self) -> bool {
        self.templates.iter().any(|template| template.parsed.has_generation())
    }

    /// Renders a conversation: by `tool_use` if there are tools and a template of that name, else by `default`.
    ///
    /// # Errors
    /// [`Error::Template`] if the template raises or passes a bound, or the conversation cannot be continued.
    pub(crate) fn render(&self, conversation: &Conversation, options: RenderOptions) -> Result<Rendered> {
        let template = self.choose(conversation.tools.is_some())?;
        let failed = |reason: &str| self.error(&template.name, reason);
        check(conversation, options).map_err(&failed)?;
        let mut messages: Vec<Value> = conversation.messages.iter().map(plain).collect();
        let tag = match options.continue_final_message {
            true => Some(continued::tag(&mut messages, &template.source).map_err(&failed)?),
            false => None,
        };
        let output = self.output(template, (conversation, &Value::Array(messages)), options)?;
        let assistant = byte_ranges(&output.text, &output.marks);
        match tag {
            None => Ok(Rendered { text: output.text, assistant }),
            Some(content) => {
                let text = continued::cut(&output.text, &content).map_err(&failed)?.to_owned();
                let assistant = assistant.into_iter().map(|range| clamp(&range, text.len())).collect();
                Ok(Rendered { text, assistant })
            }
        }
    }

    fn output(
        &self,
        template: &Named,
        given: (&Conversation, &Value),
        options: RenderOptions,
    ) -> Result<jinja::Output> {
        let (conversation, messages) = given;
        let generation = Value::Bool(options.add_generation_prompt);
        let mut variables: jinja::Variables = self.tokens.iter().map(|(name, token)| (name.as_str(), token)).collect();
        variables.extend(
            conversation.kwargs.iter().flat_map(|kwargs| kwargs.iter()).map(|(name, value)| (name.as_str(), value)),
        );
        variables.push(("messages", messages));
        variables.push(("tools", conversation.tools.unwrap_or(&Value::Null)));
        variables.push(("documents", conversation.documents.unwrap_or(&Value::Null)));
        variables.push(("add_generation_prompt", &generation));
        let output = template.parsed.render(&variables, self.clock);
        output.map_err(|fault| {
            faults::error(&self.folder, &template.name, &fault, Some((conversation, &template.source)))
        })
    }

    fn choose(&self, tools: bool) -> Result<&Named> {
        let named = |name: &str| self.templates.iter().find(|template| template.name == name);
        let chosen = named("tool_use").filter(|_| tools).or_else(|| named("default"));
        chosen.map(|template| &**template).ok_or_else(|| {
            let names: Vec<&str> = self.templates.iter().map(|template| template.name.as_str()).collect();
            let names = names.join(", ");
            self.error("default", &format!("there are templates of other names ({names}) and none of this one"))
        })
    }

    fn error(&self, name: &str, reason: &str) -> Error {
        Error::Template { path: self.folder.clone(), reason: format!("template {name}: {reason}") }
    }
}

/// Checks what `transformers` checks before it renders.
fn check(conversation: &Conversation, options: RenderOptions) -> std::result::Result<(), &'static str> {
    if conversation.messages.is_empty() {
        return Err("there are no messages; give at least one");
    }
    if !conversation.messages.iter().all(Value::is_object) {
        return Err("a message is no object");
    }
    if options.add_generation_prompt && options.continue_final_message {
        return Err("add_generation_prompt and continue_final_message exclude each other");
    }
    let objects = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_object));
    if !conversation.tools.is_none_or(objects) {
        return Err("tools is no list of objects");
    }
    if !conversation.documents.is_none_or(objects) {
        return Err("documents is no list of objects");
    }
    let reserved = ["messages", "tools", "documents", "add_generation_prompt"];
    if conversation.kwargs.is_some_and(|kwargs| reserved.iter().any(|name| kwargs.contains_key(*name))) {
        return Err("chat_template_kwargs names messages, tools, documents or add_generation_prompt");
    }
    Ok(())
}

/// Names under which messages have their reasoning; the first is the one that most templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Returns a message without keys that are null, and with its reasoning under the names that templates read.
fn plain(message: &Value) -> Value {
    let Value::Object(fields) = message else { return message.clone() };
    let reasoning = REASONING.iter().find_map(|name| fields.get(*name).filter(|value| !value.is_null()));
    let mut plain = Map::new();
    if let Some(reasoning) = reasoning {
        plain.insert("thinking".into(), reasoning.clone());
    }
    plain
        .extend(fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())));
    if let Some(reasoning) = reasoning {
        plain.insert("reasoning_content".into(), reasoning.clone());
    }
    Value::Object(plain)
}

fn clamp(range: &Range<usize>, end: usize) -> Range<usize> {
    range.start.min(end)..range.end.min(end)
}

/// Converts ranges of characters to ranges of bytes; what lies behind the text's end is cut.
fn byte_ranges(text: &str, marks: &[Range<usize>]) -> Vec<Range<usize>> {
    if marks.is_empty() {
        return Vec::new();
    }
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let byte = |at: usize| starts.get(at).copied().unwrap_or(text.len());
    marks.iter().map(|mark| byte(mark.start)..byte(mark.end)).collect()
}
