//! A configuration under construction: plain values, and where each of them was written.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use crate::{Error, Result};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing sets it.
    Default,
    /// It follows from another key, named here.
    Derived(String),
    /// The preset, by name.
    Preset(String),
    /// A line of the file.
    File {
        /// The file as given.
        file: String,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable, by name.
    Env(String),
    /// A `--set` override, as given.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Derived(from) => write!(f, "from {from}"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}

/// Values by dotted key, with the origin of every key that something sets.
///
/// Entries of lists are keys too: `judge.0.scale`.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// An object.
    pub root: Value,
    /// Origin of each key, tables and lists included.
    pub origins: BTreeMap<String, Origin>,
}

impl Tree {
    /// Makes a tree that holds nothing.
    pub fn empty() -> Self {
        Self { root: Value::Object(Map::new()), origins: BTreeMap::new() }
    }

    /// Parses TOML and remembers the line of every key.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let table = DeTable::parse(text).map_err(|error| Error::Syntax {
            file: file.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            reason: error.message().to_owned(),
        })?;
        let mut tree = Self::empty();
        tree.root =
            tree.read_table(table.get_ref(), "", &|at| Origin::File { file: file.to_owned(), line: line_of(text, at) });
        Ok(tree)
    }

    /// Sets one key, with everything that lies on the way to it; list entries are named by index or by their `name`.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] for an entry that a list does not have.
    pub fn set(&mut self, key: &str, value: Value, origin: &Origin) -> Result<()> {
        let place = self.locate(key, origin)?;
        let path = place.join(".");
        self.origins.retain(|other, _| other != &path && !other.starts_with(&format!("{path}.")));
        for length in 1..place.len() {
            let around = place[..length].join(".");
            if !self.get(&around).is_some_and(|node| node.is_object() || node.is_array()) {
                self.origins.insert(around, origin.clone());
            }
        }
        insert(&mut self.root, &place, value);
        self.mark(&path, origin);
        Ok(())
    }

    /// Sets a key unless something sets it already.
    ///
    /// # Errors
    /// As [`Tree::set`].
    pub fn set_absent(&mut self, key: &str, value: Value, origin: &Origin) -> Result<()> {
        if self.get(key).is_none() { self.set(key, value, origin) } else { Ok(()) }
    }

    /// Looks a key up.
    pub fn get(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.root, |node, part| match node {
            Value::Object(map) => map.get(part),
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Returns where a key, or the nearest table around it, was written.
    pub fn place(&self, key: &str) -> String {
        let mut at = key;
        loop {
            if let Some(origin) = self.origins.get(at) {
                return origin.to_string();
            }
            match at.rsplit_once('.') {
                Some((around, _)) => at = around,
                None => return Origin::Default.to_string(),
            }
        }
    }

    /// Writes list entries as their index, so that `judge.main.scale` finds the judge named `main`.
    fn locate(&self, key: &str, origin: &Origin) -> Result<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        for part in key.split('.') {
            let list = if found.is_empty() { None } else { self.get(&found.join(".")).and_then(Value::as_array) };
            let Some(list) = list else {
                found.push(part.to_owned());
                continue;
            };
            let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
            let by_name = list.iter().position(|entry| name(entry).as_deref() == Some(part));
            let by_index = part.parse().ok().filter(|index| *index < list.len());
            let index = by_name.or(by_index).ok_or_else(|| Error::UnknownKey {
                key: key.to_owned(),
                place: origin.to_string(),
                nearest: (0..list.len())
                    .map(|i| join(&found.join("."), &list.get(i).and_then(name).unwrap_or(i.to_string())))
                    .collect(),
            })?;
            found.push(index.to_string());
        }
        Ok(found)
    }

    /// Notes the origin of a value and of everything in it.
    fn mark(&mut self, path: &str, origin: &Origin) {
        let mut keys = vec![path.to_owned()];
        if let Some(value) = self.get(path) {
            inner_keys(value, path, &mut keys);
        }
        self.origins.extend(keys.into_iter().map(|key| (key, origin.clone())));
    }

    fn read_table(&mut self, table: &DeTable<'_>, path: &str, origin: &dyn Fn(usize) -> Origin) -> Value {
        let mut map = Map::new();
        for (key, value) in table {
            let inner = join(path, key.get_ref());
            self.origins.insert(inner.clone(), origin(key.span().start));
            let value = self.read_value(value.get_ref(), &inner, origin);
            map.insert(key.get_ref().to_string(), value);
        }
        Value::Object(map)
    }

    fn read_value(&mut self, value: &DeValue<'_>, path: &str, origin: &dyn Fn(usize) -> Origin) -> Value {
        match value {
            DeValue::Table(table) => self.read_table(table, path, origin),
            DeValue::Array(list) => {
                let mut entries = Vec::new();
                for (index, entry) in list.iter().enumerate() {
                    let inner = format!("{path}.{index}");
                    self.origins.insert(inner.clone(), origin(entry.span().start));
                    entries.push(self.read_value(entry.get_ref(), &inner, origin));
                }
                Value::Array(entries)
            }
            scalar => read_scalar(scalar),
        }
    }
}

/// Reads a value as TOML; what is not TOML is a bare word and stands for itself.
pub(crate) fn parse_value(text: &str) -> Value {
    let as_word = || Value::String(text.to_owned());
    match DeValue::parse(text) {
        Ok(value) => Tree::empty().read_value(value.get_ref(), "", &|_| Origin::Default),
        Err(_) => as_word(),
    }
}

/// Appends a part to a dotted key.
pub(crate) fn join(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") }
}

fn read_scalar(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Integer(number) => {
            let wide = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
            Number::from_i128(wide).or_else(|| Number::from_f64(wide as f64)).map_or(Value::Null, Value::Number)
        }
        // JSON has no NaN and no infinity; as text they are refused with the type that was expected.
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or_else(|| Value::String(number.as_str().to_owned()), Value::Number),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        other => Value::String(other.as_str().unwrap_or_default().to_owned()),
    }
}

fn inner_keys(value: &Value, path: &str, keys: &mut Vec<String>) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (join(path, key), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (format!("{path}.{i}"), value)).collect(),
        _ => return,
    };
    for (key, value) in entries {
        inner_keys(value, &key, keys);
        keys.push(key);
    }
}

/// Puts a value into a nest of tables; something else in the way gives way to a table.
fn insert(node: &mut Value, parts: &[String], value: Value) {
    let Some((first, rest)) = parts.split_first() else {
        *node = value;
        return;
    };
    if let Value::Array(list) = node
        && let Some(entry) = first.parse::<usize>().ok().and_then(|index| list.get_mut(index))
    {
        return insert(entry, rest, value);
    }
    if !node.is_object() {
        *node = Value::Object(Map::new());
    }
    if let Value::Object(map) = node {
        insert(map.entry(first.clone()).or_insert(Value::Null), rest, value);
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}
