//! `str.format`, as the sandbox runs it.

use super::{
    call::Args,
    error::{Fault, Result},
    escape::escape,
    repr,
    state::State,
    value::{Text, Value},
};

/// Where the fields of a format find their values.
struct Fields {
    list: Vec<Value>,
    named: Vec<(String, Value)>,
    /// A mapping in the place of keyword arguments.
    map: Option<Value>,
    /// The next number of a field without one; `None` once fields have numbers.
    next: Option<usize>,
    numbered: bool,
    markup: bool,
}

impl State<'_> {
    /// Formats with arguments.
    pub(crate) fn format_method(&mut self, text: &Text, args: Args) -> Result<Value> {
        let Args { list, named } = args;
        let mut fields = Fields { list, named, map: None, next: Some(0), numbered: false, markup: text.markup };
        let result = self.vformat(&text.text, &mut fields, 2)?;
        Ok(Value::marked(result, text.markup))
    }

    /// Formats with a mapping.
    pub(crate) fn format_map(&mut self, text: &Text, map: Value) -> Result<Value> {
        let map = Some(map);
        let (list, named) = (Vec::new(), Vec::new());
        let mut fields = Fields { list, named, map, next: Some(0), numbered: false, markup: text.markup };
        let result = self.vformat(&text.text, &mut fields, 2)?;
        Ok(Value::marked(result, text.markup))
    }

    fn vformat(&mut self, format: &str, fields: &mut Fields, depth: u32) -> Result<String> {
        let mut result = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            result.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                result.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(Fault::new("a format has a single '}'"));
            }
            let end = field_end(rest).ok_or_else(|| Fault::new("a format has a field that is not closed"))?;
            if depth == 0 {
                return Err(Fault::new("a format has fields in fields in fields"));
            }
            let written = self.field(&rest[..end], fields, depth)?;
            result.push_str(&written);
            self.meter.text(result.len())?;
            rest = &rest[end + 1..];
        }
        result.push_str(rest);
        self.meter.text(result.len())?;
        Ok(result)
    }

    fn field(&mut self, field: &str, fields: &mut Fields, depth: u32) -> Result<String> {
        let (name, conversion, spec) = split_field(field)?;
        let value = self.field_value(name, fields)?;
        let value = match conversion {
            None => value,
            Some('s') => Value::text(self.str(&value)?),
            Some('r') => Value::text(self.repr(&value)?),
            Some('a') => Value::text(ascii(&self.repr(&value)?)),
            Some(_) => return Err(Fault::new("a format has an unknown conversion")),
        };
        let spec = self.vformat(spec, fields, depth - 1)?;
        if fields.markup {
            return self.format_escaped(&value, &spec);
        }
        self.format_value(&value, &spec)
    }

    fn format_escaped(&mut self, value: &Value, spec: &str) -> Result<String> {
        match value {
            Value::Text(text) if text.markup && spec.is_empty() => Ok(text.text.to_string()),
            Value::Text(text) if text.markup => Err(Fault::new("an escaped text takes no format specification")),
            _ => Ok(escape(&self.format_value(value, spec)?)),
        }
    }

    fn field_value(&mut self, name: &str, fields: &mut Fields) -> Result<Value> {
        let first_end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(first_end);
        let mut value = self.first_value(first, fields)?;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                if end == 0 {
                    return Err(Fault::new("a format has an empty attribute"));
                }
                value = self.attribute(&value, &after[..end])?;
                rest = &after[end..];
                continue;
            }
            let after = rest.strip_prefix('[').ok_or_else(|| Fault::new("a format has text behind an index"))?;
            let end = after.find(']').ok_or_else(|| Fault::new("a format has an index that is not closed"))?;
            let key = match after[..end].parse::<i64>() {
                Ok(number) if after[..end].chars().all(|digit| digit.is_ascii_digit()) => Value::Int(number),
                _ => Value::text(&after[..end]),
            };
            value = self.item(&value, &key)?;
            rest = &after[end + 1..];
        }
        Ok(value)
    }

    fn first_value(&mut self, name: &str, fields: &mut Fields) -> Result<Value> {
        let missing = || Fault::new("a format names an argument that is not given");
        let at = if name.is_empty() {
            let at = fields.next.filter(|_| !fields.numbered);
            let at = at.ok_or_else(|| Fault::new("a format mixes fields with and without numbers"))?;
            fields.next = Some(at + 1);
            at
        } else if name.chars().all(|digit| digit.is_ascii_digit()) {
            if fields.next != Some(0) {
                return Err(Fault::new("a format mixes fields with and without numbers"));
            }
            fields.numbered = true;
            name.parse().map_err(|_| missing())?
        } else {
            if let Some(map) = fields.map.clone() {
                let Value::Dict(dict) = &map else { return Err(missing()) };
                return dict.map.get(&super::compare::Key::text(name)).cloned().ok_or_else(missing);
            }
            let found = fields.named.iter().find(|(found, _)| found == name);
            return found.map(|(_, value)| value.clone()).ok_or_else(missing);
        };
        fields.list.get(at).cloned().ok_or_else(missing)
    }
}

/// Finds the brace that closes a field.
fn field_end(text: &str) -> Option<usize> {
    let (mut depth, mut bracket) = (0u32, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => bracket = true,
            ']' => bracket = false,
            '{' if !bracket => depth += 1,
            '}' if !bracket && depth == 0 => return Some(at),
            '}' if !bracket => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Splits a field into name, conversion and specification.
fn split_field(field: &str) -> Result<(&str, Option<char>, &str)> {
    let mut bracket = false;
    for (at, letter) in field.char_indices() {
        match letter {
            '[' => bracket = true,
            ']' => bracket = false,
            '{' => return Err(Fault::new("a format has a field in a field's name")),
            ':' if !bracket => return Ok((&field[..at], None, &field[at + 1..])),
            '!' if !bracket => {
                let mut rest = field[at + 1..].chars();
                let conversion = rest.next().ok_or_else(|| Fault::new("a format lacks a conversion behind '!'"))?;
                let spec = match rest.next() {
                    None => "",
                    Some(':') => rest.as_str(),
                    Some(_) => return Err(Fault::new("a format expects ':' behind a conversion")),
                };
                return Ok((&field[..at], Some(conversion), spec));
            }
            _ => {}
        }
    }
    Ok((field, None, ""))
}

/// Escapes what is not ASCII, as Python's `ascii`.
pub(crate) fn ascii(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() { result.push(letter) } else { repr::escape(letter, &mut result) }
    }
    result
}
