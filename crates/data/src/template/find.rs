//! Where a model folder has its templates and special tokens.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use serde_json::{Map, Value};

use super::jinja::MAX_SOURCE_BYTES;
use crate::{Error, Result};

/// Most templates of a folder.
const MAX_TEMPLATES: usize = 64;

/// Special tokens that every tokenizer may have.
const TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

fn broken(folder: &Path, reason: String) -> Error {
    Error::Template { path: folder.into(), reason }
}

/// Returns names and sources of a folder's templates; files win over `tokenizer_config.json`.
pub(super) fn sources(folder: &Path, config: &Value) -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    if let Some(source) = read(folder, "chat_template.jinja")? {
        sources.push(("default".to_owned(), source));
    }
    for name in additional(folder)? {
        let file = format!("additional_chat_templates/{name}.jinja");
        if let Some(source) = read(folder, &file)? {
            // As a dict: a later template of the same name takes the place of an earlier one.
            sources.retain(|(found, _)| *found != name);
            sources.push((name, source));
        }
    }
    if sources.is_empty() { inside(folder, &config["chat_template"]) } else { Ok(sources) }
}

/// Returns the names of `additional_chat_templates/*.jinja`.
fn additional(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("additional_chat_templates");
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("read", &path))?.file_name();
        if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".jinja")) {
            names.push(name.to_owned());
        }
        if names.len() > MAX_TEMPLATES {
            return Err(broken(folder, format!("there are more than {MAX_TEMPLATES} additional templates")));
        }
    }
    names.sort();
    Ok(names)
}

fn read(folder: &Path, name: &str) -> Result<Option<String>> {
    let path = folder.join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SOURCE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() > MAX_SOURCE_BYTES {
        return Err(broken(folder, format!("{name} is larger than {MAX_SOURCE_BYTES} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| broken(folder, format!("{name} is not UTF-8 text")))
}

/// Reads the templates of `tokenizer_config.json`: one text, or a list of names and texts.
fn inside(folder: &Path, value: &Value) -> Result<Vec<(String, String)>> {
    let wrong = || {
        let expected = "expected a text, or a list of objects with name and template";
        broken(folder, format!("chat_template in tokenizer_config.json is malformed; {expected}"))
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(source) => Ok(vec![("default".to_owned(), source.clone())]),
        Value::Object(named) => named
            .iter()
            .map(|(name, source)| Ok((name.clone(), source.as_str().ok_or_else(wrong)?.to_owned())))
            .collect(),
        Value::Array(list) => {
            let mut sources: Vec<(String, String)> = Vec::new();
            for entry in list {
                let (Some(name), Some(source)) = (entry["name"].as_str(), entry["template"].as_str()) else {
                    return Err(wrong());
                };
                sources.retain(|(found, _)| found != name);
                sources.push((name.to_owned(), source.to_owned()));
            }
            if sources.is_empty() { Err(wrong()) } else { Ok(sources) }
        }
        _ => Err(wrong()),
    }
}

/// Returns the special tokens by name, as `transformers` puts them together.
///
/// `special_tokens_map.json` counts, and then wins, only where `tokenizer_config.json` has no `added_tokens_decoder`.
pub(super) fn special_tokens(folder: &Path, config: &Value) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    collect(config, &mut found);
    if config.get("added_tokens_decoder").is_none()
        && let Some(text) = read(folder, "special_tokens_map.json")?
    {
        let map: Value = serde_json::from_str(&text)
            .map_err(|error| broken(folder, format!("special_tokens_map.json is not JSON: {error}")))?;
        let mut tokens = Map::new();
        for (name, value) in map.as_object().into_iter().flatten() {
            if TOKENS.contains(&name.as_str()) || name.ends_with("_token") {
                tokens.insert(name.clone(), token_text(value).map_or(Value::Null, Value::String));
            }
        }
        if let Some(Value::Object(extra)) = map.get("extra_special_tokens") {
            insert_all(extra, &mut tokens);
        }
        found.extend(tokens);
    }
    found.retain(|_, value| !value.is_null());
    Ok(found)
}

/// Collects standard tokens, other keys that end in `_token`, and named extra tokens.
fn collect(config: &Value, found: &mut Map<String, Value>) {
    let Value::Object(config) = config else { return };
    for (name, value) in config {
        let standard = TOKENS.contains(&name.as_str());
        // `add_bos_token` and its like are switches, not tokens.
        let other = name.ends_with("_token") && (value.is_string() || value["__type"] == "AddedToken");
        if (standard || other)
            && let Some(token) = token_text(value)
        {
            found.insert(name.clone(), Value::String(token));
        }
    }
    if let Some(Value::Object(extra)) = config.get("extra_special_tokens") {
        insert_all(extra, found);
    }
}

fn insert_all(extra: &Map<String, Value>, found: &mut Map<String, Value>) {
    for (name, value) in extra {
        if let Some(token) = token_text(value) {
            found.insert(name.clone(), Value::String(token));
        }
    }
}

/// Reads a special token written as text or as an object with `content`.
pub(crate) fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}
