//! The padding token of a reward model's folder: a score is read at the last token that is another one, so the model and
//! the tokenizer of a folder have to mean the same one.

use std::{fs, path::Path};

use joust_core::scratch::write_atomically;
use joust_data::Tokenizer;
use joust_model::Error;
use serde_json::{Map, Value, json};

const CONFIG: &str = "tokenizer_config.json";

/// Returns the id that fills the ends of rows: the tokenizer's own, else its EOS, as TRL chooses.
pub fn id(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.pad_id().or(tokenizer.eos_id())
}

/// Names the padding token in a folder whose tokenizer names none, so that batches are filled with the id that
/// `config.json` says.
///
/// # Errors
/// A file that cannot be read or written.
pub fn name_in(folder: &Path, tokenizer: &Tokenizer) -> joust_model::Result<()> {
    let Some(token) = id(tokenizer).and_then(|id| tokenizer.token(id)) else { return Ok(()) };
    let mut config = read(&folder.join(CONFIG))?;
    let special = read(&folder.join("special_tokens_map.json"))?;
    let is_named = |keys: &Map<String, Value>| keys.get("pad_token").is_some_and(|token| !token.is_null());
    if is_named(&config) || is_named(&special) {
        return Ok(());
    }
    config.insert("pad_token".into(), json!(token));
    let (path, text) = (folder.join(CONFIG), format!("{:#}\n", Value::Object(config)));
    write_atomically(&path, text.as_bytes()).map_err(Error::io("write", path))
}

fn read(path: &Path) -> joust_model::Result<Map<String, Value>> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Error::Config {
            path: path.into(),
            key: "the file".into(),
            value: error.to_string(),
            expected: "expected a JSON object".into(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
