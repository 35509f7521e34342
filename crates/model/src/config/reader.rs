//! Typed values out of the raw map of `config.json`; errors name file and key.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Dtype, Head, RopeScaling, keys::ROPE};
use crate::{
    Error, Result,
    keys::{check, refused},
};

/// Labels that `transformers` gives a score head whose file names and counts none.
const UNNAMED_LABELS: i64 = 2;

/// The raw map and where it comes from.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) raw: &'a Map<String, Value>,
}

/// The table of rotary parameters: its key, and what it holds.
struct RopeTable<'a> {
    reader: &'a Reader<'a>,
    key: &'a str,
    table: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn error(&self, key: &str, expected: &str) -> Error {
        match self.raw.get(key) {
            Some(value) => refused(self.path, key, value, expected),
            None => Error::Config {
                path: self.path.into(),
                key: key.into(),
                value: "missing".into(),
                expected: expected.into(),
            },
        }
    }

    fn present(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn integer(&self, key: &str) -> Result<i64> {
        let value = self.raw.get(key).and_then(Value::as_i64).filter(|value| *value > 0);
        value.ok_or_else(|| self.error(key, "expected a positive integer"))
    }

    pub(super) fn integer_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.present(key).is_some() { self.integer(key) } else { Ok(default) }
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.present(key) else { return Ok(default) };
        value.as_f64().filter(|v| *v > 0.0).ok_or_else(|| self.error(key, "expected a positive number"))
    }

    /// Reads a flag that is off by default.
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        let Some(value) = self.present(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.error(key, "expected true or false"))
    }

    /// Reads the id of a token; older writers stored -1 for none.
    pub(super) fn id(&self, key: &str) -> Result<Option<i64>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.error(key, "expected the id of a token"))
    }

    pub(super) fn kv_heads(&self, heads: i64) -> Result<i64> {
        let key = "num_key_value_heads";
        let kv_heads = self.integer_or(key, heads)?;
        if heads % kv_heads != 0 {
            return Err(self.error(key, "it must divide num_attention_heads"));
        }
        Ok(kv_heads)
    }

    pub(super) fn head_dim(&self, hidden_size: i64, heads: i64) -> Result<i64> {
        if self.present("head_dim").is_none() && hidden_size % heads != 0 {
            return Err(self.error("num_attention_heads", "it must divide hidden_size"));
        }
        let head_dim = self.integer_or("head_dim", hidden_size / heads)?;
        if head_dim % 2 != 0 {
            return Err(self.error("head_dim", "a head rotates its halves and needs an even width"));
        }
        Ok(head_dim)
    }

    /// Reads the names of the labels; `transformers` counts two where neither names nor a number are given.
    pub(super) fn labels(&self) -> Result<Vec<String>> {
        let named = self.present("id2label").and_then(Value::as_object);
        let count = self.integer_or("num_labels", named.map_or(UNNAMED_LABELS, |named| named.len() as i64))?;
        let Some(named) = named else { return Ok((0..count).map(|id| format!("LABEL_{id}")).collect()) };
        if named.len() as i64 != count {
            return Err(self.error("num_labels", &format!("id2label names {} labels", named.len())));
        }
        let name = |id: i64| named.get(&id.to_string()).and_then(Value::as_str).map(str::to_owned);
        let names: Option<Vec<String>> = (0..count).map(name).collect();
        names.ok_or_else(|| self.error("id2label", "its keys are the numbers from 0 on, its values names"))
    }

    pub(super) fn head(&self) -> Result<Head> {
        let first = self.raw.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        match first {
            Some("LlamaForCausalLM") => Ok(Head::CausalLm),
            Some("LlamaForSequenceClassification") => Ok(Head::Score),
            _ => Err(self.error("architectures", "supported are LlamaForCausalLM and LlamaForSequenceClassification")),
        }
    }

    /// Reads the element type to compute in; weights stored in float16 are computed with in float32.
    pub(super) fn dtype(&self) -> Result<Dtype> {
        let key = if self.present("dtype").is_some() { "dtype" } else { "torch_dtype" };
        let Some(value) = self.present(key) else { return Ok(Dtype::Float32) };
        match value.as_str() {
            Some("float16") => Ok(Dtype::Float32),
            name => name
                .and_then(Dtype::parse)
                .ok_or_else(|| self.error(key, "supported are float32, bfloat16 and float16; convert the weights")),
        }
    }

    fn table(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_object().map(Some).ok_or_else(|| self.error(key, "expected an object"))
    }

    /// Reads the rotary parameters: where both tables are given, `transformers` takes the older one.
    pub(super) fn rope(&self, context: i64) -> Result<(f64, RopeScaling)> {
        let (older, newer) = (self.table("rope_scaling")?, self.table("rope_parameters")?);
        let empty = Map::new();
        let (key, table) = match older.filter(|table| !table.is_empty()) {
            Some(table) => ("rope_scaling", table),
            None => ("rope_parameters", newer.unwrap_or(&empty)),
        };
        check(self.path, table, &[ROPE]).map_err(|error| within(error, key))?;
        let rope = RopeTable { reader: self, key, table };
        let theta = match rope.number("rope_theta")? {
            Some(theta) => theta,
            None => self.number_or("rope_theta", 10_000.0)?,
        };
        Ok((theta, rope.scaling(context)?))
    }
}

/// Puts the name of a table before the key that an error names.
fn within(error: Error, table: &str) -> Error {
    match error {
        Error::Config { path, key, value, expected } => {
            Error::Config { path, key: format!("{table}.{key}"), value, expected }
        }
        other => other,
    }
}

impl RopeTable<'_> {
    fn refused(&self, name: &str, expected: &str) -> Error {
        let value = self.table.get(name).unwrap_or(&Value::Null);
        refused(self.reader.path, &format!("{}.{name}", self.key), value, expected)
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.table.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let number = value.as_f64().filter(|number| *number > 0.0);
        number.map(Some).ok_or_else(|| self.refused(name, "expected a positive number"))
    }

    fn needed(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.reader.error(self.key, &format!("it lacks {name}")))
    }

    fn scaling(&self, context: i64) -> Result<RopeScaling> {
        let kind = self.table.get("rope_type").or_else(|| self.table.get("type")).unwrap_or(&Value::Null);
        match kind.as_str() {
            Some("default") => Ok(RopeScaling::Default),
            None if kind.is_null() => Ok(RopeScaling::Default),
            Some("linear") => Ok(RopeScaling::Linear { factor: self.needed("factor")? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: self.needed("factor")?,
                low_freq_factor: self.needed("low_freq_factor")?,
                high_freq_factor: self.needed("high_freq_factor")?,
                original: self.number("original_max_position_embeddings")?.unwrap_or(context as f64),
            }),
            _ => Err(self.reader.error(self.key, "supported rope types are default, linear and llama3")),
        }
    }
}
