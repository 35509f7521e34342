//! Names of closed choices as files write them.

use serde::Serialize;
use serde_json::Value;

/// Returns the name of a choice as the file writes it.
pub fn name_of(choice: &impl Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
