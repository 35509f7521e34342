//! Holds plain values against a JSON Schema and says what is wrong in words that a user can act on.
//!
//! It knows the part of JSON Schema that `schemars` writes for this crate's types, and no more.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{
    Error,
    suggest::{nearest, nearest_keys},
    tree::{Tree, join},
};

/// Generates the JSON Schema of a type, everything inlined.
pub(crate) fn schema_of<T: schemars::JsonSchema>() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// Lists every dotted key of a schema; list entries are left out of the path (`judge.scale`).
pub(crate) fn all_keys(schema: &Value) -> Vec<String> {
    fn walk(schema: &Value, path: &str, keys: &mut Vec<String>) {
        for branch in branches(schema) {
            walk(branch, path, keys);
        }
        if let Some(items) = schema.get("items") {
            walk(items, path, keys);
        }
        for (name, inner) in properties(schema) {
            let key = join(path, name);
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
            walk(inner, &key, keys);
        }
    }
    let mut keys = Vec::new();
    walk(schema, "", &mut keys);
    keys
}

/// Finds every problem of a tree.
pub(crate) fn check(schema: &Value, tree: &Tree, file: &str) -> Vec<Error> {
    let mut checker = Checker { tree, file, keys: all_keys(schema), errors: Vec::new() };
    checker.value(schema, &tree.root, "");
    checker.errors
}

/// Describes the values that a schema allows, for example `a number above 0`.
pub(crate) fn describe(schema: &Value) -> String {
    let names = names(schema);
    if !names.is_empty() {
        return format!("one of {}", names.join(", "));
    }
    if let Some(inner) = non_null_branch(schema) {
        return describe(inner);
    }
    match type_of(schema) {
        "integer" => format!("an integer{}", range(schema)),
        "number" => format!("a number{}", range(schema)),
        "boolean" => "true or false".to_owned(),
        "array" => {
            let what = schema.get("items").map_or("values".to_owned(), describe_many);
            let some = if schema.get("minItems").is_some() { "a list with at least one of" } else { "a list of" };
            format!("{some} {what}")
        }
        "string" => match schema.get("pattern").and_then(Value::as_str) {
            Some(pattern) => format!("text that matches {pattern}"),
            None if schema.get("minLength").is_some() => "text that is not empty".to_owned(),
            None => "text".to_owned(),
        },
        _ if schema.get("minProperties").is_some() => "a table with at least one key".to_owned(),
        _ => "a table".to_owned(),
    }
}

fn describe_many(items: &Value) -> String {
    match type_of(items) {
        "string" if names(items).is_empty() => "texts".to_owned(),
        _ if !names(items).is_empty() => names(items).join(", "),
        "integer" => "integers".to_owned(),
        "number" => "numbers".to_owned(),
        _ => "tables".to_owned(),
    }
}

/// Lists the names of a closed choice of texts, in the order of the enum; empty when the schema is none.
pub(crate) fn names(schema: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(name) = schema.get("const") {
        return text(name).into_iter().collect();
    }
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return list.iter().filter_map(text).collect();
    }
    if schema.get("properties").is_some() {
        return Vec::new();
    }
    branches(schema).iter().flat_map(|branch| names(branch)).collect()
}

/// Returns the properties of an object schema by name, whatever order `serde_json` was built to keep.
pub(crate) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let known = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter);
    known.collect::<BTreeMap<_, _>>().into_iter()
}

/// Returns the alternatives of a schema.
pub(crate) fn branches(schema: &Value) -> Vec<&Value> {
    ["oneOf", "anyOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten().collect()
}

/// Returns the one type that a schema names, `null` aside.
pub(crate) fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or(""),
        _ => "",
    }
}

/// Returns the real alternative of `anyOf: [something, null]`.
pub(crate) fn non_null_branch(schema: &Value) -> Option<&Value> {
    let all = branches(schema);
    let mut real = all.iter().filter(|branch| type_of(branch) != "null");
    let first = real.next()?;
    (all.len() == 2 && real.next().is_none()).then_some(*first)
}

/// Renders the bounds of a number.
fn range(schema: &Value) -> String {
    let bound = |key: &str| schema.get(key).filter(|value| !value.is_null());
    if let (Some(low), Some(high)) = (bound("minimum"), bound("maximum"))
        && low == high
    {
        return format!(" that is {}", plain(low));
    }
    let mut parts = Vec::new();
    if let Some(low) = bound("exclusiveMinimum") {
        parts.push(format!("above {}", plain(low)));
    } else if let Some(low) = bound("minimum") {
        parts.push(format!("of at least {}", plain(low)));
    }
    if let Some(high) = bound("exclusiveMaximum") {
        parts.push(format!("below {}", plain(high)));
    } else if bound("maximum").and_then(Value::as_i64) == Some(i64::MAX) {
        parts.push("below 2^63".to_owned());
    } else if let Some(high) = bound("maximum") {
        parts.push(format!("at most {}", plain(high)));
    }
    if parts.is_empty() { String::new() } else { format!(" {}", parts.join(" and ")) }
}

/// Writes 1.0 as 1.
fn plain(number: &Value) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

struct Checker<'a> {
    tree: &'a Tree,
    file: &'a str,
    keys: Vec<String>,
    errors: Vec<Error>,
}

impl Checker<'_> {
    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if !names(schema).is_empty() {
            return self.name(schema, value, path);
        }
        if let Some(inner) = non_null_branch(schema) {
            return self.value(inner, value, path);
        }
        if !branches(schema).is_empty() {
            return self.alternative(schema, value, path);
        }
        match (type_of(schema), value) {
            ("object", Value::Object(map)) => self.object(schema, map, path),
            ("array", Value::Array(list)) => self.list(schema, list, path),
            ("integer", Value::Number(number)) if (number.is_i64() || number.is_u64()) && in_range(schema, value) => {}
            ("number", Value::Number(_)) if in_range(schema, value) => {}
            ("boolean", Value::Bool(_)) => {}
            ("string", Value::String(text)) if matches(schema, text) => {}
            _ => self.bad(schema, value, path),
        }
    }

    fn bad(&mut self, schema: &Value, value: &Value, path: &str) {
        self.errors.push(Error::BadValue {
            key: path.to_owned(),
            value: value.to_string(),
            place: self.tree.place(path),
            expected: describe(schema),
        });
    }

    fn name(&mut self, schema: &Value, value: &Value, path: &str) {
        let known = names(schema);
        let Some(text) = value.as_str() else { return self.bad(schema, value, path) };
        if !known.iter().any(|name| name == text) {
            self.errors.push(Error::UnknownValue {
                key: path.to_owned(),
                value: text.to_owned(),
                place: self.tree.place(path),
                nearest: nearest(text, known.iter().map(String::as_str)),
                known,
            });
        }
    }

    fn list(&mut self, schema: &Value, list: &[Value], path: &str) {
        if schema.get("minItems").and_then(Value::as_u64).is_some_and(|least| (list.len() as u64) < least) {
            return self.bad(schema, &Value::Array(list.to_vec()), path);
        }
        let Some(items) = schema.get("items") else { return };
        for (index, entry) in list.iter().enumerate() {
            self.value(items, entry, &format!("{path}.{index}"));
        }
    }

    fn object(&mut self, schema: &Value, map: &Map<String, Value>, path: &str) {
        if let Some(values) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
            if map.is_empty() && schema.get("minProperties").is_some() {
                self.bad(schema, &Value::Object(map.clone()), path);
            }
            return map.iter().for_each(|(key, value)| self.value(values, value, &join(path, key)));
        }
        for (key, value) in map {
            let inner = join(path, key);
            match schema.get("properties").and_then(|known| known.get(key)) {
                Some(schema) => self.value(schema, value, &inner),
                None => self.unknown(&inner),
            }
        }
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(key) {
                let expected = schema.get("properties").and_then(|known| known.get(key)).map_or_else(String::new, help);
                self.errors.push(Error::MissingKey { key: join(path, key), file: self.file.to_owned(), expected });
            }
        }
    }

    fn unknown(&mut self, path: &str) {
        // Suggestions are looked up without the positions in lists, which the known keys do not have either.
        let bare: Vec<&str> = path.split('.').filter(|part| part.parse::<usize>().is_err()).collect();
        self.errors.push(Error::UnknownKey {
            key: path.to_owned(),
            place: self.tree.place(path),
            nearest: nearest_keys(&bare.join("."), &self.keys),
        });
    }

    /// Picks the alternative that the value means: by its tag, else by the keys that it has.
    fn alternative(&mut self, schema: &Value, value: &Value, path: &str) {
        let Value::Object(map) = value else { return self.bad(&Value::Null, value, path) };
        let all = branches(schema);
        if let Some(tag) = tag_of(&all) {
            let known: Vec<String> = all.iter().filter_map(|branch| const_of(branch, tag)).collect();
            let chosen = map.get(tag).and_then(Value::as_str);
            let found = all.iter().find(|branch| const_of(branch, tag).as_deref() == chosen && chosen.is_some());
            return match (found, map.get(tag)) {
                (Some(branch), _) => self.value(branch, value, path),
                (None, Some(other)) => {
                    self.name(&serde_json::json!({ "enum": known }), other, &join(path, tag));
                }
                (None, None) => self.errors.push(Error::MissingKey {
                    key: join(path, tag),
                    file: self.file.to_owned(),
                    expected: format!("one of {}", known.join(", ")),
                }),
            };
        }
        let hits = |branch: &Value| properties(branch).filter(|(key, _)| map.contains_key(*key)).count();
        let first_key = |branch: &Value| required(branch).first().is_some_and(|key| map.contains_key(key));
        match all.iter().filter(|branch| first_key(branch)).max_by_key(|branch| hits(branch)) {
            Some(branch) => self.value(branch, value, path),
            None => {
                let kinds: Vec<String> = all.iter().filter_map(|branch| required(branch).first().cloned()).collect();
                self.errors.push(Error::BadValue {
                    key: path.to_owned(),
                    value: value.to_string(),
                    place: self.tree.place(path),
                    expected: format!("a table with one of the keys {}", kinds.join(", ")),
                });
            }
        }
    }
}

/// Says what to write for a missing key: its domain and its meaning.
fn help(schema: &Value) -> String {
    let about = schema.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
    let first = about.split_inclusive(['.', ':', ';']).next().unwrap_or_default().trim_end_matches(['.', ':', ';']);
    let article = describe(schema);
    if first.is_empty() { format!("write {article}") } else { format!("write {article}, {}", lower_first(first)) }
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), text.chars().nth(1)) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

fn required(schema: &Value) -> Vec<String> {
    let list = schema.get("required").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Returns the property that every alternative fixes to a name of its own.
pub(crate) fn tag_of<'a>(all: &[&'a Value]) -> Option<&'a str> {
    let first = all.first()?;
    let (tag, _) = properties(first).find(|(_, inner)| inner.get("const").is_some())?;
    all.iter().all(|branch| const_of(branch, tag).is_some()).then_some(tag.as_str())
}

/// Returns the name that an alternative fixes a property to.
pub(crate) fn const_of(branch: &Value, tag: &str) -> Option<String> {
    branch.get("properties")?.get(tag)?.get("const")?.as_str().map(str::to_owned)
}

fn in_range(schema: &Value, value: &Value) -> bool {
    let Some(number) = value.as_f64() else { return false };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let fits_u32 = schema.get("format").and_then(Value::as_str) != Some("uint32") || number <= f64::from(u32::MAX);
    fits_u32
        && bound("minimum").is_none_or(|low| number >= low)
        && bound("exclusiveMinimum").is_none_or(|low| number > low)
        && bound("maximum").is_none_or(|high| number <= high)
        && bound("exclusiveMaximum").is_none_or(|high| number < high)
}

fn matches(schema: &Value, text: &str) -> bool {
    if schema.get("minLength").and_then(Value::as_u64).is_some_and(|least| (text.len() as u64) < least) {
        return false;
    }
    let pattern = schema.get("pattern").and_then(Value::as_str);
    pattern.and_then(|pattern| regex::Regex::new(pattern).ok()).is_none_or(|pattern| pattern.is_match(text))
}
