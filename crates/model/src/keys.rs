//! Allow-lists of the keys of JSON configs: a key that is not in a list is refused by its name.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The parser reads it.
    Read,
    /// It changes nothing that this crate computes.
    Ignored,
    /// Other values than these, in JSON, would change what is computed; null and empty ones are the default.
    Only(&'static [&'static str]),
}

/// A key with its rule.
pub(crate) type Key = (&'static str, Rule);

/// Longest value that an error prints, in characters.
const SHOWN: usize = 120;

/// Refuses a key that no list names or whose value its rule excludes.
///
/// # Errors
/// [`Error::Config`] with file, key and value.
pub(crate) fn check(path: &Path, raw: &Map<String, Value>, lists: &[&[Key]]) -> Result<()> {
    for (key, value) in raw {
        let rule = lists.iter().copied().flatten().find(|(name, _)| name == key).map(|(_, rule)| *rule);
        match rule {
            Some(Rule::Read | Rule::Ignored) => {}
            Some(Rule::Only(accepted)) if accepts(accepted, value) => {}
            Some(Rule::Only(accepted)) => return Err(refused(path, key, value, &supported(accepted))),
            None if is_off(value) => {}
            None => {
                let expected = "an unsupported key; remove it if it does not change what the model computes";
                return Err(refused(path, key, value, expected));
            }
        }
    }
    Ok(())
}

/// Builds the error of a value.
pub(crate) fn refused(path: &Path, key: &str, value: &Value, expected: &str) -> Error {
    let mut shown = value.to_string();
    if let Some((at, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(at);
        shown.push('…');
    }
    Error::Config { path: path.into(), key: key.into(), value: shown, expected: expected.into() }
}

fn supported(accepted: &[&str]) -> String {
    match accepted {
        [] => "expected null or no such key".to_owned(),
        accepted => format!("supported is {}", accepted.join(" or ")),
    }
}

fn accepts(accepted: &[&str], value: &Value) -> bool {
    is_empty(value) || accepted.iter().any(|text| same(text, value))
}

/// Returns whether a value is what a JSON text says, numbers by value: `1.0` is `1`.
fn same(text: &str, value: &Value) -> bool {
    let Ok(wanted) = serde_json::from_str::<Value>(text) else { return false };
    wanted == *value || wanted.as_f64().zip(value.as_f64()).is_some_and(|(a, b)| a == b)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns whether an unknown key says that what it names is off.
fn is_off(value: &Value) -> bool {
    is_empty(value) || *value == Value::Bool(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEYS: [Key; 3] = [("a", Rule::Read), ("b", Rule::Ignored), ("c", Rule::Only(&["1", "\"x\""]))];

    fn checked(value: Value) -> Result<()> {
        check(Path::new("config.json"), value.as_object().expect("an object"), &[&KEYS])
    }

    #[test]
    fn values_in_the_lists_pass() {
        for value in [json!({"a": 5, "b": [1]}), json!({"c": 1}), json!({"c": 1.0}), json!({"c": "x"})] {
            checked(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
        }
    }

    #[test]
    fn what_is_off_passes_whoever_reads_it() {
        for off in [json!(null), json!([]), json!({}), json!("")] {
            checked(json!({"c": off, "of_tomorrow": off})).expect("off");
        }
        checked(json!({"of_tomorrow": false})).expect("off");
    }

    #[test]
    fn other_values_and_other_keys_are_refused_by_name() {
        for (value, key) in [
            (json!({"c": 2}), "c is 2, supported is 1 or \"x\""),
            (json!({"c": false}), "c is false"),
            (json!({"of_tomorrow": true}), "of_tomorrow is true, an unsupported key; remove it"),
            (json!({"of_tomorrow": 0}), "of_tomorrow is 0"),
            (json!({"of_tomorrow": "on"}), "of_tomorrow is \"on\""),
        ] {
            let error = checked(value.clone()).expect_err("refused").to_string();
            assert!(error.contains(key) && error.contains("config.json"), "{value}: {error}");
        }
    }

    #[test]
    fn long_values_are_cut_in_errors() {
        let error = checked(json!({"of_tomorrow": "ü".repeat(1000)})).expect_err("refused").to_string();
        assert!(error.chars().count() < 300, "{error}");
    }
}
