//! Values as text: Python's `str` and `repr`.

use std::fmt::Write as _;

use super::{
    error::{Fault, Result},
    limits::{MAX_TEXT_BYTES, MAX_VALUE_DEPTH, Meter},
    state::State,
    unicode::is_printable,
    value::{Dict, Side, Value},
};

/// Writes a float as Python does: the shortest digits that read back the same.
pub(crate) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Writes a text in quotes, as Python's `repr`.
pub(crate) fn quoted(text: &str, result: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    result.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            _ if letter == quote => result.extend(['\\', letter]),
            _ if is_printable(letter) => result.push(letter),
            _ => escape(letter, result),
        }
    }
    result.push(quote);
}

/// Writes a character by its number.
pub(crate) fn escape(letter: char, result: &mut String) {
    let code = u32::from(letter);
    let written = match code {
        0..=0xff => write!(result, "\\x{code:02x}"),
        0x100..=0xffff => write!(result, "\\u{code:04x}"),
        _ => write!(result, "\\U{code:08x}"),
    };
    // Writing to a String cannot fail.
    written.unwrap_or_default();
}

impl State<'_> {
    /// Returns a value as text, as `str`.
    pub(crate) fn str(&self, value: &Value) -> Result<std::sync::Arc<str>> {
        match value {
            Value::Text(text) => Ok(text.text.clone()),
            Value::Undefined(_) => Ok("".into()),
            _ => {
                let mut result = String::new();
                self.repr_into(value, &mut result, 0)?;
                self.meter.text(result.len())?;
                Ok(result.into())
            }
        }
    }

    /// Returns a value as Python source, as `repr`.
    pub(crate) fn repr(&self, value: &Value) -> Result<String> {
        let mut result = String::new();
        self.repr_into(value, &mut result, 0)?;
        self.meter.text(result.len())?;
        Ok(result)
    }

    fn repr_into(&self, value: &Value, result: &mut String, depth: u32) -> Result<()> {
        self.meter.step(1)?;
        if result.len() > MAX_TEXT_BYTES {
            return Err(Fault::bound("bytes of one text", MAX_TEXT_BYTES as u64));
        }
        if depth > MAX_VALUE_DEPTH {
            return Err(Fault::bound("nested lists and dicts", MAX_VALUE_DEPTH.into()));
        }
        match value {
            Value::Undefined(_) => result.push_str("Undefined"),
            Value::None => result.push_str("None"),
            Value::Bool(value) => result.push_str(if *value { "True" } else { "False" }),
            Value::Int(number) => write!(result, "{number}").unwrap_or_default(),
            Value::Big(number) => result.push_str(&integer(number, &self.meter)?),
            Value::Float(number) => result.push_str(&float(*number)),
            Value::Text(text) if text.markup => {
                result.push_str("Markup(");
                quoted(&text.text, result);
                result.push(')');
            }
            Value::Text(text) => quoted(&text.text, result),
            Value::List(items) => self.repr_list(&items.list, ("[", "]"), (result, depth))?,
            Value::Tuple(items) if items.list.len() == 1 => {
                self.repr_list(&items.list, ("(", ",)"), (result, depth))?;
            }
            Value::Tuple(items) => self.repr_list(&items.list, ("(", ")"), (result, depth))?,
            Value::Dict(dict) => self.repr_dict(dict, result, depth)?,
            Value::View(side, dict) => self.repr_view(*side, dict, (result, depth))?,
            Value::Range(range) if range.step == 1 => {
                write!(result, "range({}, {})", range.start, range.stop).unwrap_or_default();
            }
            Value::Range(range) => {
                write!(result, "range({}, {}, {})", range.start, range.stop, range.step).unwrap_or_default();
            }
            Value::Namespace(number) => {
                result.push_str("<Namespace ");
                let attributes = self.namespaces[*number].clone();
                let attributes = Value::dict(attributes, &self.meter)?;
                self.repr_into(&attributes, result, depth + 1)?;
                result.push('>');
            }
            Value::Macro(number) => match &self.macros[*number].source.name {
                Some(name) => {
                    result.push_str("<Macro ");
                    quoted(name, result);
                    result.push('>');
                }
                None => result.push_str("<Macro anonymous>"),
            },
            Value::Loop(number) => {
                let state = &self.loops[*number];
                write!(result, "<LoopContext {}/{}>", state.index + 1, state.items.len()).unwrap_or_default();
            }
            Value::Once(_) | Value::Cycler(_) | Value::Joiner(_) | Value::Function(_) | Value::Method(..) => {
                // Python prints an address here, another one each time.
                return Err(Fault::new(format!("a {} cannot be printed", value.kind())));
            }
        }
        Ok(())
    }

    fn repr_list(&self, items: &[Value], marks: (&str, &str), into: (&mut String, u32)) -> Result<()> {
        let (result, depth) = into;
        result.push_str(marks.0);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                result.push_str(", ");
            }
            self.repr_into(item, result, depth + 1)?;
        }
        result.push_str(marks.1);
        Ok(())
    }

    fn repr_dict(&self, dict: &Dict, result: &mut String, depth: u32) -> Result<()> {
        result.push('{');
        for (at, (key, value)) in dict.map.iter().enumerate() {
            if at > 0 {
                result.push_str(", ");
            }
            self.repr_into(&key.0, result, depth + 1)?;
            result.push_str(": ");
            self.repr_into(value, result, depth + 1)?;
        }
        result.push('}');
        Ok(())
    }

    fn repr_view(&self, side: Side, dict: &Dict, into: (&mut String, u32)) -> Result<()> {
        let (result, depth) = into;
        let items = dict.side(side, &self.meter)?;
        result.push_str(match side {
            Side::Keys => "dict_keys(",
            Side::Values => "dict_values(",
            Side::Items => "dict_items(",
        });
        self.repr_list(&items, ("[", "])"), (result, depth))
    }
}

/// Writes a large integer in base 10; Python refuses to print more than 4 300 digits.
pub(crate) fn integer(number: &num_bigint::BigInt, meter: &Meter) -> Result<String> {
    meter.step(number.bits() / 8)?;
    let digits = number.to_string();
    if digits.trim_start_matches('-').len() > 4300 {
        return Err(Fault::new("an integer has more than 4300 digits"));
    }
    Ok(digits)
}

impl Dict {
    /// Returns the keys, values or items.
    pub(crate) fn side(&self, side: Side, meter: &Meter) -> Result<Vec<Value>> {
        meter.places(self.map.len())?;
        self.map
            .iter()
            .map(|(key, value)| match side {
                Side::Keys => Ok(key.0.clone()),
                Side::Values => Ok(value.clone()),
                Side::Items => Value::tuple(vec![key.0.clone(), value.clone()], meter),
            })
            .collect()
    }
}
