//! Filters on lists, dicts and other sequences.

use super::{
    call::{Args, index, required},
    error::{Fault, Result},
    escape::escape,
    state::State,
    value::{Side, Value},
};

impl State<'_> {
    /// Applies a filter on sequences.
    pub(crate) fn sequence_filter(&mut self, name: &str, value: Value, args: Args) -> Result<Value> {
        match name {
            "attr" => {
                let [attribute] = args.places(name, ["name"])?;
                let attribute = super::strings::text_argument(&required(attribute, name)?, name)?;
                self.attribute_only(&value, &attribute)
            }
            "d" | "default" => {
                let [default, boolean] = args.places(name, ["default_value", "boolean"])?;
                let boolean = boolean.is_some_and(|boolean| boolean.truth());
                let missing = matches!(value, Value::Undefined(_)) || boolean && !value.truth();
                Ok(if missing { default.unwrap_or_else(|| Value::text("")) } else { value })
            }
            "join" => {
                let [separator, attribute] = args.places(name, ["d", "attribute"])?;
                self.join(&value, separator, attribute)
            }
            "batch" | "slice" => {
                let [count, fill] =
                    args.places(name, [if name == "batch" { "linecount" } else { "slices" }, "fill_with"])?;
                let count = index(&required(count, name)?, name)?;
                let fill = fill.filter(|fill| !matches!(fill, Value::None));
                if name == "batch" {
                    self.batch(&value, count, fill.as_ref())
                } else {
                    self.parts(&value, count, fill.as_ref())
                }
            }
            _ => {
                let []: [Option<Value>; 0] = args.positional(name)?;
                self.plain_sequence_filter(name, value)
            }
        }
    }

    fn plain_sequence_filter(&mut self, name: &str, value: Value) -> Result<Value> {
        match name {
            "count" | "length" => {
                let length = self.length(&value)?;
                Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
            }
            "list" => {
                let items = self.items(&value)?;
                Value::list(items, &self.meter)
            }
            "items" => match value {
                Value::Dict(dict) => Ok(Value::once(dict.side(Side::Items, &self.meter)?, None)),
                // A generator: what is wrong shows when it is used.
                Value::Undefined(_) => Ok(Value::once(Vec::new(), None)),
                _ => {
                    Ok(Value::once(Vec::new(), Some(Fault::new(format!("items needs a dict, got a {}", value.kind())))))
                }
            },
            "first" => {
                if let Value::Once(once) = &value
                    && let Some(first) = once.borrow_mut().left.pop_front()
                {
                    return Ok(first);
                }
                let first = self.items(&value)?.into_iter().next();
                Ok(first.unwrap_or_else(|| Value::undefined("there is no first item")))
            }
            "last" => {
                let last = self.reversed(&value)?.into_iter().next();
                Ok(last.unwrap_or_else(|| Value::undefined("there is no last item")))
            }
            "random" => match self.length(&value)? {
                0 => Ok(Value::undefined("there is no random item")),
                1 => self.item(&value, &Value::Int(0)),
                _ => Err(Fault::new("the filter 'random' gives another item each time and is not supported")),
            },
            _ => self.reverse(&value),
        }
    }

    /// Returns the length of what has one.
    pub(crate) fn length(&self, value: &Value) -> Result<usize> {
        match value {
            Value::Undefined(_) => Ok(0),
            Value::Text(text) => Ok(text.text.chars().count()),
            Value::List(items) | Value::Tuple(items) => Ok(items.list.len()),
            Value::Dict(dict) | Value::View(_, dict) => Ok(dict.map.len()),
            Value::Range(range) => Ok(usize::try_from(range.len()).unwrap_or(usize::MAX)),
            Value::Loop(number) => Ok(self.loops[*number].length),
            _ => Err(Fault::new(format!("a {} has no length", value.kind()))),
        }
    }

    fn reversed(&mut self, value: &Value) -> Result<Vec<Value>> {
        if let Value::Once(_) = value {
            return Err(Fault::new("a generator cannot be reversed"));
        }
        let mut items = self.items(value)?;
        items.reverse();
        Ok(items)
    }

    fn reverse(&mut self, value: &Value) -> Result<Value> {
        match value {
            Value::Text(text) => Ok(Value::marked(text.text.chars().rev().collect::<String>(), text.markup)),
            Value::Once(_) => {
                let mut items = self.items(value)?;
                items.reverse();
                Value::list(items, &self.meter)
            }
            _ => Ok(Value::once(self.reversed(value)?, None)),
        }
    }

    fn join(&mut self, value: &Value, separator: Option<Value>, attribute: Option<Value>) -> Result<Value> {
        let mut items = self.items(value)?;
        if let Some(attribute) = attribute.filter(|attribute| !matches!(attribute, Value::None)) {
            let path = super::filters_keyed::path(&attribute)?;
            items = items.iter().map(|item| self.follow(item, &path, None)).collect::<Result<_>>()?;
        }
        let marked = |value: &Value| matches!(value, Value::Text(text) if text.markup);
        let separator_marked = separator.as_ref().is_some_and(marked);
        let escapes = self.autoescape && (separator_marked || items.iter().any(marked));
        let part = |state: &Self, value: &Value| -> Result<std::sync::Arc<str>> {
            let text = state.str(value)?;
            Ok(if escapes && !marked(value) { escape(&text).into() } else { text })
        };
        let separator = separator.map_or(Ok("".into()), |separator| part(self, &separator))?;
        let mut joined = String::new();
        for (at, item) in items.iter().enumerate() {
            let text = part(self, item)?;
            let lead = if at > 0 { separator.len() } else { 0 };
            if joined.len() + lead + text.len() > super::limits::MAX_TEXT_BYTES {
                return Err(Fault::bound("bytes of one text", super::limits::MAX_TEXT_BYTES as u64));
            }
            if at > 0 {
                joined.push_str(&separator);
            }
            joined.push_str(&text);
        }
        self.meter.text(joined.len())?;
        Ok(Value::marked(joined, escapes))
    }

    fn batch(&mut self, value: &Value, count: i64, fill: Option<&Value>) -> Result<Value> {
        let items = self.items(value)?;
        let (mut batches, mut batch) = (Vec::new(), Vec::new());
        for item in items {
            if i64::try_from(batch.len()) == Ok(count) {
                batches.push(Value::list(std::mem::take(&mut batch), &self.meter)?);
            }
            batch.push(item);
        }
        if !batch.is_empty() {
            if let Some(fill) = fill {
                let missing = usize::try_from(count).unwrap_or(0).saturating_sub(batch.len());
                self.meter.places(missing)?;
                batch.extend(std::iter::repeat_n(fill.clone(), missing));
            }
            batches.push(Value::list(batch, &self.meter)?);
        }
        Ok(Value::once(batches, None))
    }

    fn parts(&mut self, value: &Value, count: i64, fill: Option<&Value>) -> Result<Value> {
        let items = self.items(value)?;
        let slices = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Ok(Value::once(Vec::new(), Some(Fault::new("it divides by zero"))));
        }
        self.meter.places(slices)?;
        let (each, extra) = (items.len() / slices.max(1), items.len() % slices.max(1));
        let (mut parts, mut start) = (Vec::new(), 0);
        for number in 0..slices {
            let end = start + each + usize::from(number < extra);
            let mut part = items[start..end].to_vec();
            if number >= extra {
                part.extend(fill.cloned());
            }
            parts.push(Value::list(part, &self.meter)?);
            start = end;
        }
        Ok(Value::once(parts, None))
    }
}
