//! `tojson`: JSON as Python's `json.dumps` writes it, without escapes for HTML.

use std::fmt::Write as _;

use super::{
    call::{Args, index},
    compare::sort_by_keys,
    error::{Fault, Result},
    limits::{MAX_TEXT_BYTES, Meter},
    repr,
    value::{Dict, Value},
};

/// How JSON is written.
struct Style {
    ascii: bool,
    indent: Option<String>,
    between: String,
    behind_key: String,
    sort: bool,
}

/// Writes a value as JSON.
pub(crate) fn to_json(value: &Value, args: Args, meter: &Meter) -> Result<String> {
    let [ascii, indent, separators, sort] =
        args.places("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text.text.to_string()),
        Some(width) => {
            let width = usize::try_from(index(&width, "tojson")?.max(0)).unwrap_or(usize::MAX);
            meter.text(width)?;
            Some(" ".repeat(width))
        }
    };
    let default = if indent.is_some() { "," } else { ", " };
    let (between, behind_key) = match separators {
        None | Some(Value::None) => (default.to_owned(), ": ".to_owned()),
        Some(Value::Tuple(items) | Value::List(items)) => match items.list.as_slice() {
            [Value::Text(between), Value::Text(behind)] => (between.text.to_string(), behind.text.to_string()),
            _ => return Err(Fault::new("tojson needs two texts as separators")),
        },
        Some(_) => return Err(Fault::new("tojson needs two texts as separators")),
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let style = Style { ascii: truth(ascii), indent, between, behind_key, sort: truth(sort) };
    let mut writer = Writer { style, result: String::new(), meter };
    writer.value(value, 0)?;
    meter.text(writer.result.len())?;
    Ok(writer.result)
}

struct Writer<'m> {
    style: Style,
    result: String,
    meter: &'m Meter,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        self.meter.step(1)?;
        if self.result.len() > MAX_TEXT_BYTES {
            return Err(Fault::bound("bytes of one text", MAX_TEXT_BYTES as u64));
        }
        match value {
            Value::Text(text) => self.text(&text.text),
            Value::List(items) | Value::Tuple(items) => self.list(&items.list, depth)?,
            Value::Dict(dict) => self.dict(dict, depth)?,
            other => {
                let text = scalar(other, self.meter)?;
                self.result.push_str(&text);
            }
        }
        Ok(())
    }

    fn list(&mut self, items: &[Value], depth: usize) -> Result<()> {
        self.result.push('[');
        for (at, item) in items.iter().enumerate() {
            self.between(at, depth + 1)?;
            self.value(item, depth + 1)?;
        }
        self.close(items.is_empty(), depth, ']')
    }

    fn dict(&mut self, dict: &Dict, depth: usize) -> Result<()> {
        self.result.push('{');
        let entries = self.entries(dict)?;
        for (at, (key, value)) in entries.iter().enumerate() {
            self.between(at, depth + 1)?;
            match key {
                Value::Text(text) => self.text(&text.text),
                other => {
                    let text = scalar(other, self.meter).map_err(|_| key_fault(other))?;
                    self.text(&text);
                }
            }
            self.result.push_str(&self.style.behind_key);
            self.value(value, depth + 1)?;
        }
        self.close(entries.is_empty(), depth, '}')
    }

    fn entries(&self, dict: &Dict) -> Result<Vec<(Value, Value)>> {
        self.meter.places(dict.map.len())?;
        let entries = dict.map.iter().map(|(key, value)| (key.0.clone(), value.clone()));
        if !self.style.sort {
            return Ok(entries.collect());
        }
        let keys = dict.map.keys().map(|key| (key.0.clone(), key.0.clone())).collect();
        let sorted = sort_by_keys(keys, false, self.meter)?;
        let value = |key: &Value| dict.map.get(&super::compare::Key(key.clone())).cloned().unwrap_or(Value::None);
        Ok(sorted.into_iter().map(|key| (key.clone(), value(&key))).collect())
    }

    fn between(&mut self, at: usize, depth: usize) -> Result<()> {
        if at > 0 {
            self.result.push_str(&self.style.between);
        }
        self.line(depth)
    }

    fn close(&mut self, empty: bool, depth: usize, mark: char) -> Result<()> {
        if !empty {
            self.line(depth)?;
        }
        self.result.push(mark);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<()> {
        if let Some(indent) = &self.style.indent {
            self.meter.read(indent.len().saturating_mul(depth))?;
            if self.result.len().saturating_add(indent.len().saturating_mul(depth)) > MAX_TEXT_BYTES {
                return Err(Fault::bound("bytes of one text", MAX_TEXT_BYTES as u64));
            }
            self.result.push('\n');
            self.result.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.result.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.result.push_str("\\\""),
                '\\' => self.result.push_str("\\\\"),
                '\n' => self.result.push_str("\\n"),
                '\r' => self.result.push_str("\\r"),
                '\t' => self.result.push_str("\\t"),
                '\u{8}' => self.result.push_str("\\b"),
                '\u{c}' => self.result.push_str("\\f"),
                _ if letter < ' ' || self.style.ascii && !letter.is_ascii_graphic() && letter != ' ' => {
                    self.escape(letter);
                }
                _ => self.result.push(letter),
            }
        }
        self.result.push('"');
    }

    fn escape(&mut self, letter: char) {
        let mut units = [0; 2];
        for unit in letter.encode_utf16(&mut units) {
            // Writing to a String cannot fail.
            write!(self.result, "\\u{unit:04x}").unwrap_or_default();
        }
    }
}

fn key_fault(key: &Value) -> Box<Fault> {
    Fault::new(format!("tojson cannot write a {} as a key", key.kind()))
}

fn scalar(value: &Value, meter: &Meter) -> Result<String> {
    Ok(match value {
        Value::None => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Big(number) => repr::integer(number, meter)?,
        Value::Float(number) if number.is_nan() => "NaN".into(),
        Value::Float(number) if number.is_infinite() => if *number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::Float(number) => repr::float(*number),
        Value::Undefined(what) => return Err(Fault::new(format!("tojson got nothing: {what}"))),
        other => return Err(Fault::new(format!("tojson cannot write a {}", other.kind()))),
    })
}
