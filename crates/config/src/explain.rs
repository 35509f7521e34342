//! A resolved file for readers: every value with its origin, and the whole as TOML.

use serde_json::Value;

use crate::{
    ConfigFile, Error, Resolved, Result,
    tree::{Origin, join},
};

/// Lists each effective value and where it comes from, one a line.
pub fn explain<F: ConfigFile>(resolved: &Resolved<F>) -> String {
    let value = serde_json::to_value(&resolved.run).unwrap_or_default();
    let mut leaves = Vec::new();
    collect("", &value, &mut leaves);
    let lines: Vec<(String, String)> = leaves
        .into_iter()
        .map(|(key, value)| {
            let origin = resolved.origins.get(&key).unwrap_or(&Origin::Default);
            (format!("{key} = {value}"), origin.to_string())
        })
        .collect();
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0);
    let rows = lines.iter().map(|(text, origin)| format!("{text:width$}  # {origin}\n"));
    rows.chain([format!("hash = {}\n", resolved.hash)]).collect()
}

/// Writes the effective values as TOML that resolves to the same hash, wherever it is put.
///
/// # Errors
/// [`Error::Decode`] if a value has no place in TOML.
pub fn dump<F: ConfigFile>(resolved: &Resolved<F>) -> Result<String> {
    toml::to_string(&resolved.run)
        .map_err(|error| Error::Decode { file: F::KIND.to_owned(), reason: error.to_string() })
}

/// Collects scalars, and lists of scalars, by dotted key.
fn collect(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(map) => map.iter().for_each(|(key, value)| collect(&join(path, key), value, leaves)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().enumerate().for_each(|(i, value)| collect(&format!("{path}.{i}"), value, leaves));
        }
        scalar => leaves.push((path.to_owned(), scalar.to_string())),
    }
}
