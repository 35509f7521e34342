//! What templates render, against what Jinja2 and `transformers` render (scripts/fixtures/jinja.py).

mod bounds;
mod cases;
mod fixtures;

use std::path::Path;

use serde_json::{Value, json};

use super::{ChatTemplate, Conversation, RenderOptions, Rendered, jinja::Clock};
use crate::Result;

/// Makes a folder with one template.
fn folder(source: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), source).unwrap();
    folder
}

fn template(source: &str) -> ChatTemplate {
    let folder = folder(source);
    ChatTemplate::find(folder.path(), &json!({})).unwrap().unwrap()
}

/// Returns the time that the fixtures are made at.
fn clock() -> Clock {
    let date = chrono::NaiveDate::from_ymd_opt(2026, 3, 5).unwrap();
    Clock::Fixed(date.and_hms_opt(4, 7, 9).unwrap())
}

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/jinja").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn render(template: &ChatTemplate, messages: &Value) -> Result<Rendered> {
    let conversation = Conversation { messages: messages.as_array().unwrap(), ..Conversation::default() };
    template.render(&conversation, RenderOptions::default())
}

fn failure(source: &str, messages: &Value) -> String {
    render(&template(source), messages).unwrap_err().to_string()
}
