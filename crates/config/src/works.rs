//! What this build can run today, in one place: everything else that parses is refused with these lists.

use serde::Serialize;
use serde_json::Value;

use crate::run::LOSSES;

/// Whether models are fetched from a hub, by id and revision.
pub const HUB: bool = false;

/// Lists the values of a run file's key that run; `None` for a key all of whose values do.
pub fn of_key(key: &str) -> Option<Vec<String>> {
    fn all(choices: &[impl Serialize]) -> Option<Vec<String>> {
        Some(choices.iter().map(name_of).collect())
    }
    match key {
        "loss.name" => all(&LOSSES.map(|spec| spec.name)),
        _ => None,
    }
}

/// Returns the name of a choice as the file writes it.
pub fn name_of(choice: &impl Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
