//! Text methods that go character by character: tabs and tables.

use super::{
    call::{Args, index, required},
    error::{Fault, Result},
    state::State,
    strings::text_argument,
    value::Value,
};

impl State<'_> {
    /// Replaces tabs by spaces.
    pub(super) fn expand_tabs(&mut self, text: &str, size: i64) -> Result<String> {
        let size = usize::try_from(size).unwrap_or(0);
        self.meter.text(text.len().saturating_add(text.matches('\t').count().saturating_mul(size)))?;
        let (mut result, mut column) = (String::new(), 0);
        for letter in text.chars() {
            if letter == '\t' {
                let spaces = if size > 0 { size - column % size } else { 0 };
                result.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
                continue;
            }
            result.push(letter);
            column = if letter == '\n' || letter == '\r' { 0 } else { column + 1 };
        }
        Ok(result)
    }

    /// Replaces characters by a table.
    pub(super) fn translate(&mut self, text: &str, table: &Value) -> Result<String> {
        let mut result = String::new();
        for letter in text.chars() {
            let code = Value::Int(u32::from(letter).into());
            let found = match table {
                Value::Dict(dict) => dict.map.get(&super::compare::Key(code)).cloned(),
                Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
                    Some(self.item(table, &code)?).filter(|value| !matches!(value, Value::Undefined(_)))
                }
                _ => return Err(Fault::new(format!("translate needs a table, got a {}", table.kind()))),
            };
            match found {
                None => result.push(letter),
                Some(Value::None) => {}
                Some(Value::Text(text)) => result.push_str(&text.text),
                Some(number) => result.push(character(&number)?),
            }
            self.meter.text(result.len())?;
        }
        Ok(result)
    }

    /// Makes a table of characters.
    pub(super) fn make_trans(&mut self, args: Args) -> Result<Value> {
        let [first, second, removed] = args.positional("maketrans")?;
        let first = required(first, "maketrans")?;
        let code = |letter: char| super::compare::Key(Value::Int(u32::from(letter).into()));
        let mut map = indexmap::IndexMap::new();
        if let Some(second) = &second {
            let (from, to) = (text_argument(&first, "maketrans")?, text_argument(second, "maketrans")?);
            if from.chars().count() != to.chars().count() {
                return Err(Fault::new("maketrans needs two texts of one length"));
            }
            map.extend(from.chars().zip(to.chars()).map(|(from, to)| (code(from), Value::Int(u32::from(to).into()))));
            if let Some(removed) = &removed {
                let removed = text_argument(removed, "maketrans")?;
                map.extend(removed.chars().map(|letter| (code(letter), Value::None)));
            }
            return Value::dict(map, &self.meter);
        }
        let Value::Dict(dict) = &first else {
            return Err(Fault::new("maketrans needs a dict, or two texts"));
        };
        for (key, value) in &dict.map {
            let key = match key.0.as_text() {
                None => key.clone(),
                Some(text) if text.chars().count() == 1 => code(text.chars().next().unwrap_or_default()),
                Some(_) => return Err(Fault::new("maketrans needs keys of one character")),
            };
            map.insert(key, value.clone());
        }
        Value::dict(map, &self.meter)
    }
}

/// Returns the character of a number.
pub(crate) fn character(number: &Value) -> Result<char> {
    let code = index(number, "a character")?;
    let letter = u32::try_from(code).ok().and_then(char::from_u32);
    letter.ok_or_else(|| Fault::new("a number is no character"))
}
