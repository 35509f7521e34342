//! Chat templates, rendered as `transformers` renders them.

use std::path::{Path, PathBuf};

use joust_core::Message;
use minijinja::{Environment, Error as JinjaError, ErrorKind, context, syntax::SyntaxConfig};
use serde_json::Value;

use crate::{Error, Result};

/// A model's chat template with the special tokens it may name.
#[derive(Debug, Clone)]
pub(crate) struct ChatTemplate {
    folder: PathBuf,
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Finds the template of a folder: `chat_template.jinja`, or the one inside `tokenizer_config.json` (text or named list).
    pub(crate) fn find(folder: &Path, config: &Value) -> Option<Self> {
        let file = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
        let inside = match &config["chat_template"] {
            Value::String(text) => Some(text.clone()),
            Value::Array(named) => {
                let default = named.iter().find(|entry| entry["name"] == "default").or_else(|| named.first());
                default.and_then(|entry| entry["template"].as_str()).map(str::to_owned)
            }
            _ => None,
        };
        let source = file.or(inside)?;
        let token = |key| token_text(&config[key]).unwrap_or_default();
        Some(Self { folder: folder.into(), source, bos_token: token("bos_token"), eos_token: token("eos_token") })
    }

    /// Renders messages; `generation` adds what opens the assistant's turn.
    ///
    /// # Errors
    /// [`Error::Template`] if the template does not parse or raises.
    pub(crate) fn render(&self, messages: &[Message], generation: bool) -> Result<String> {
        let failed = |error: JinjaError| Error::Template {
            path: self.folder.clone(),
            reason: format!("{error:#}").replace('\n', " "),
        };
        let mut environment = Environment::new();
        // As transformers sets them up.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template("chat", &self.source).map_err(failed)?;
        let template = environment.get_template("chat").map_err(failed)?;
        let rendered = template.render(context! {
            messages => minijinja::value::Serde(messages),
            add_generation_prompt => generation,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        });
        rendered.map_err(failed)
    }
}

fn raise_exception(message: String) -> std::result::Result<String, JinjaError> {
    Err(JinjaError::new(ErrorKind::InvalidOperation, message))
}

/// Reads a special token written as text or as an object with `content`.
pub(crate) fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}
