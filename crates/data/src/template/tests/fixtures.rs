//! Differences from the fixtures; all are printed, and none but the listed ones pass.

use serde_json::Value;

use super::{clock, read};
use crate::template::{ChatTemplate, Conversation, RenderOptions, jinja::Template};

/// Rows of the table that differ, by what they contain, with the reason.
const DIFFERENT: [(&str, &str); 13] = [
    (").encode()", "there are no bytes; refused"),
    ("**", "complex numbers do not exist; refused"),
    ("(items|map('string'))", "Python prints an address; refused"),
    ("rows|pprint", "wider than 80 characters; refused"),
    ("none[1:]", "Jinja2 folds this constant into nothing; Python has no slices of None; refused"),
    ("{{ cycler }}", "a class is not printed; refused"),
    ("{{ self }}", "there are no inherited blocks; refused"),
    ("self.a()", "there are no inherited blocks; refused"),
    ("|random", "another item each time; refused"),
    ("('>'|safe) }}{% endautoescape", "Jinja2 folds two constants into one that is not escaped"),
    ("BULLET", "characters by name; refused"),
    ("(-3) ** (2.5)", "complex numbers do not exist; refused"),
    ("lipsum", "another text each time; refused"),
];

/// Rows whose text may differ instead of being refused.
const SILENT: [&str; 1] = ["('>'|safe) }}{% endautoescape"];

fn marks(row: &Value) -> Vec<Value> {
    row.get(2).and_then(Value::as_array).cloned().unwrap_or_default()
}

#[test]
fn small_templates_render_as_jinja2_renders_them() {
    let table = read("table.json");
    let variables = table["variables"].as_object().unwrap();
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let rows = table["rows"].as_array().unwrap();
    assert!(rows.len() > 14_000);
    let mut different = 0;
    for row in rows {
        let source = row[0].as_str().unwrap();
        let output = Template::parse(source).and_then(|template| template.render(&variables, clock()));
        let text = output.as_ref().ok().map(|output| output.text.as_str());
        let found: Vec<Value> = output
            .iter()
            .flat_map(|output| &output.marks)
            .map(|mark| serde_json::json!([mark.start, mark.end]))
            .collect();
        if text == row[1].as_str() && (text.is_none() || found == marks(row)) {
            continue;
        }
        let reason = DIFFERENT.iter().find(|(part, _)| source.contains(part)).map(|(_, reason)| reason);
        let silent = SILENT.iter().any(|part| source.contains(part));
        if reason.is_none() || text.is_some() && !silent {
            different += 1;
            println!("{source:?}\n  expected {:?} {:?}\n  got      {output:?}", row[1], marks(row));
        }
    }
    assert_eq!(different, 0, "rows differ");
}

#[test]
fn conversations_render_as_transformers_renders_them() {
    let chats = read("chats.json");
    let conversations = chats["conversations"].as_object().unwrap();
    let templates = chats["templates"].as_object().unwrap();
    assert!(templates.len() >= 12 && conversations.len() >= 31);
    let mut different = 0;
    for (name, entry) in templates {
        let folder = super::folder(entry["source"].as_str().unwrap());
        let mut template = ChatTemplate::find(folder.path(), &chats["tokens"]).unwrap().unwrap();
        template.clock = clock();
        for ((title, chat), expected) in conversations.iter().zip(entry["rendered"].as_array().unwrap()) {
            let rendered = template.render(&conversation(chat), options(chat));
            let got = rendered.as_ref().ok();
            let ranges = got.map(|got| got.assistant.iter().map(|range| vec![range.start, range.end]).collect());
            let ranges: Vec<Vec<usize>> = ranges.unwrap_or_default();
            let same_spans = expected.get(1).is_none_or(|spans| *spans == serde_json::json!(ranges));
            if got.map(|got| got.text.as_str()) != expected[0].as_str() || !same_spans {
                different += 1;
                println!("{name}, {title}\n  expected {expected:?}\n  got      {rendered:?}");
            }
        }
    }
    assert_eq!(different, 0, "renderings differ");
}

fn conversation(chat: &Value) -> Conversation<'_> {
    Conversation {
        messages: chat["messages"].as_array().unwrap(),
        tools: chat.get("tools"),
        documents: chat.get("documents"),
        kwargs: chat.get("kwargs").and_then(Value::as_object),
    }
}

fn options(chat: &Value) -> RenderOptions {
    RenderOptions {
        add_generation_prompt: chat["add_generation_prompt"] == true,
        continue_final_message: chat["continue_final_message"] == true,
    }
}

#[test]
fn folders_have_the_templates_and_tokens_that_transformers_finds() {
    let tools = serde_json::json!([{ "type": "function", "function": { "name": "f" } }]);
    let messages = [serde_json::json!({ "role": "user", "content": "x" })];
    for entry in read("folders.json").as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in entry["files"].as_object().unwrap() {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.as_str().unwrap()).unwrap();
        }
        let config = std::fs::read_to_string(folder.path().join("tokenizer_config.json")).unwrap();
        let found = ChatTemplate::find(folder.path(), &serde_json::from_str(&config).unwrap());
        for (tools, expected) in [None, Some(&tools)].into_iter().zip(entry["rendered"].as_array().unwrap()) {
            let conversation = Conversation { messages: &messages, tools, ..Conversation::default() };
            let template = found.as_ref().ok().and_then(Option::as_ref);
            let rendered = template.and_then(|found| found.render(&conversation, RenderOptions::default()).ok());
            assert_eq!(rendered.as_ref().map(|got| got.text.as_str()), expected.as_str(), "{}", entry["name"]);
        }
    }
}
