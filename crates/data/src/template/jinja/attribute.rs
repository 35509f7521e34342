//! Attributes, items and slices, with the rules of Jinja2's immutable sandbox.

use std::rc::Rc;

use super::{
    call::index,
    compare::Key,
    error::{Fault, Result},
    state::State,
    value::{Progression, Side, Value},
};

const TEXT: [&str; 45] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
];
const TEXT_MORE: [&str; 2] = ["upper", "zfill"];
const MARKUP: [&str; 3] = ["striptags", "unescape", "escape"];
const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const LIST: [&str; 3] = ["copy", "count", "index"];
const LIST_CHANGES: [&str; 8] = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];
const TUPLE: [&str; 2] = ["count", "index"];
const INT: [&str; 6] = ["as_integer_ratio", "bit_count", "bit_length", "conjugate", "to_bytes", "from_bytes"];
const FLOAT: [&str; 5] = ["as_integer_ratio", "conjugate", "fromhex", "hex", "is_integer"];
const LOOP: [&str; 2] = ["cycle", "changed"];
const CYCLER: [&str; 2] = ["next", "reset"];

/// Finds a method's name in lists.
fn among(lists: &[&[&'static str]], name: &str) -> Option<&'static str> {
    lists.iter().flat_map(|list| list.iter()).find(|found| **found == name).copied()
}

/// What a value has under a name.
enum Found {
    Value(Value),
    Method(&'static str),
    /// It is there, and the sandbox hides it.
    Unsafe,
    Nothing,
}

impl State<'_> {
    /// Returns an attribute, or else an item of that name.
    pub(crate) fn attribute(&mut self, value: &Value, name: &str) -> Result<Value> {
        match self.find(value, name)? {
            Found::Value(found) => Ok(found),
            Found::Method(method) => Ok(Value::Method(Rc::new(value.clone()), method)),
            Found::Unsafe => Ok(unsafe_attribute(value, name)),
            Found::Nothing => {
                let key = Value::text(name);
                Ok(self.by_key(value, &key)?.unwrap_or_else(|| missing(value, name)))
            }
        }
    }

    /// Returns an attribute, and no item.
    pub(crate) fn attribute_only(&mut self, value: &Value, name: &str) -> Result<Value> {
        if matches!(value, Value::Undefined(_)) && name.starts_with("__") {
            return Ok(missing(value, name));
        }
        match self.find(value, name)? {
            Found::Nothing => Ok(missing(value, name)),
            _ => self.attribute(value, name),
        }
    }

    /// Returns an item, or else an attribute of that name.
    pub(crate) fn item(&mut self, value: &Value, key: &Value) -> Result<Value> {
        if let Value::Undefined(what) = value {
            return Err(Fault::new(what.to_string()));
        }
        if let Some(found) = self.by_key(value, key)? {
            return Ok(found);
        }
        let Some(name) = key.as_text() else {
            return Ok(Value::undefined(format!("a {} has no such element", value.kind())));
        };
        Ok(match self.find(value, name)? {
            Found::Value(found) => found,
            Found::Method(method) => Value::Method(Rc::new(value.clone()), method),
            Found::Unsafe => Value::undefined("an attribute is not safe to use"),
            Found::Nothing => Value::undefined(format!("a {} has no such element", value.kind())),
        })
    }

    /// Looks an item up by index or key.
    fn by_key(&mut self, value: &Value, key: &Value) -> Result<Option<Value>> {
        let place = |length: usize| {
            let at = index(key, "an index").ok()?;
            let length = i64::try_from(length).ok()?;
            let at = if at < 0 { at.checked_add(length)? } else { at };
            usize::try_from(at).ok().filter(|_| at < length)
        };
        Ok(match value {
            Value::Dict(dict) => Key::of(key, &self.meter).ok().and_then(|key| dict.map.get(&key).cloned()),
            Value::List(items) | Value::Tuple(items) => place(items.list.len()).map(|at| items.list[at].clone()),
            Value::Text(text) => {
                self.meter.read(text.text.len())?;
                let at = if text.text.is_ascii() { place(text.text.len()) } else { place(text.text.chars().count()) };
                at.and_then(|at| text.text.chars().nth(at)).map(|letter| Value::marked(letter.to_string(), text.markup))
            }
            Value::Range(range) => place(usize::try_from(range.len()).unwrap_or(0))
                .and_then(|at| i64::try_from(at).ok())
                .map(|at| Value::Int(range.at(at))),
            _ => None,
        })
    }

    fn find(&mut self, value: &Value, name: &str) -> Result<Found> {
        let dunder = name.starts_with("__") && name.ends_with("__") && name.len() > 4;
        if let Value::Undefined(what) = value {
            return if is_internal(name) { Ok(Found::Unsafe) } else { Err(Fault::new(what.to_string())) };
        }
        if dunder && !matches!(value, Value::Namespace(_)) {
            return Ok(if is_internal(name) { Found::Unsafe } else { Found::Nothing });
        }
        Ok(match value {
            Value::Text(text) if text.markup => method(&[&TEXT, &TEXT_MORE, &MARKUP], &[], name),
            Value::Text(_) => method(&[&TEXT, &TEXT_MORE], &[], name),
            Value::Dict(_) => method(&[&DICT], &DICT_CHANGES, name),
            Value::List(_) => method(&[&LIST], &LIST_CHANGES, name),
            Value::Tuple(items) => match items.names.iter().position(|found| *found == name) {
                Some(at) => Found::Value(items.list[at].clone()),
                None => method(&[&TUPLE], &[], name),
            },
            Value::View(Side::Keys | Side::Items, _) => method(&[&["isdisjoint"]], &[], name),
            Value::Range(range) => range_attribute(range, name),
            Value::Bool(_) | Value::Int(_) | Value::Big(_) => match name {
                "real" | "numerator" => Found::Value(super::numbers::plain(value)),
                "imag" => Found::Value(Value::Int(0)),
                "denominator" => Found::Value(Value::Int(1)),
                _ => method(&[&INT], &[], name),
            },
            Value::Float(_) => match name {
                "real" => Found::Value(value.clone()),
                "imag" => Found::Value(Value::Float(0.0)),
                _ => method(&[&FLOAT], &[], name),
            },
            Value::Namespace(number) => {
                let found = self.namespaces[*number].get(&Key::text(name));
                found.map_or(Found::Nothing, |found| Found::Value(found.clone()))
            }
            Value::Loop(number) => self.loop_attribute(*number, name)?,
            Value::Macro(number) => self.macro_attribute(*number, name)?,
            Value::Cycler(number) => match name {
                "current" => {
                    let (items, at) = &self.cyclers[*number];
                    Found::Value(items[*at].clone())
                }
                _ => method(&[&CYCLER], &[], name),
            },
            Value::Function("dict") => method(&[&["fromkeys"]], &[], name),
            _ => Found::Nothing,
        })
    }

    fn loop_attribute(&mut self, number: usize, name: &str) -> Result<Found> {
        let state = &self.loops[number];
        let (index, length) = (state.index, state.length);
        let count = |number: usize| Found::Value(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)));
        let item = |at: Option<usize>, missing: &str| {
            let item = at.and_then(|at| state.items.get(at)).cloned();
            Found::Value(item.unwrap_or_else(|| Value::undefined(missing)))
        };
        Ok(match name {
            "index" => count(index + 1),
            "index0" => count(index),
            "revindex" => count(length - index),
            "revindex0" => count(length - index - 1),
            "first" => Found::Value(Value::Bool(index == 0)),
            "last" => Found::Value(Value::Bool(index + 1 == length)),
            "length" => count(length),
            "depth" => count(state.depth0 + 1),
            "depth0" => count(state.depth0),
            "previtem" => item(index.checked_sub(1), "there is no previous item"),
            "nextitem" => item(Some(index + 1), "there is no next item"),
            _ => method(&[&LOOP], &[], name),
        })
    }

    fn macro_attribute(&mut self, number: usize, name: &str) -> Result<Found> {
        let source = self.macros[number].source;
        Ok(Found::Value(match name {
            "name" => source.name.as_deref().map_or(Value::None, Value::text),
            "arguments" => {
                let names = source.parameters.iter().map(|name| Value::text(name.as_str())).collect();
                Value::tuple(names, &self.meter)?
            }
            "catch_kwargs" => Value::Bool(source.reads.kwargs),
            "catch_varargs" => Value::Bool(source.reads.varargs),
            "caller" => Value::Bool(source.reads.caller),
            "explicit_caller" => Value::Bool(source.parameters.iter().any(|name| name == "caller")),
            _ => return Ok(Found::Nothing),
        }))
    }

    /// Returns a slice of a text, list, tuple or range.
    pub(crate) fn slice(&mut self, value: &Value, bounds: &[Value; 3]) -> Result<Value> {
        match value {
            Value::Undefined(what) => Err(Fault::new(what.to_string())),
            Value::Text(text) => {
                self.meter.text(text.text.len())?;
                let letters: Vec<char> = text.text.chars().collect();
                let places = places(letters.len(), bounds)?;
                Ok(Value::marked(places.map(|at| letters[at]).collect::<String>(), text.markup))
            }
            Value::List(items) => {
                let picked = places(items.list.len(), bounds)?.map(|at| items.list[at].clone()).collect();
                Value::list(picked, &self.meter)
            }
            Value::Tuple(items) => {
                let picked = places(items.list.len(), bounds)?.map(|at| items.list[at].clone()).collect();
                Value::tuple(picked, &self.meter)
            }
            Value::Range(range) => {
                let (start, stop, step) = resolve(usize::try_from(range.len()).unwrap_or(0), bounds)?;
                let step_size = range.step.saturating_mul(step);
                Ok(Value::Range(Progression { start: range.at(start), stop: range.at(stop), step: step_size }))
            }
            _ => Err(Fault::new(format!("a {} has no slices", value.kind()))),
        }
    }
}

fn method(lists: &[&[&'static str]], changes: &[&'static str], name: &str) -> Found {
    match among(lists, name) {
        Some(method) => Found::Method(method),
        None if changes.contains(&name) => Found::Unsafe,
        None => Found::Nothing,
    }
}

fn range_attribute(range: &Progression, name: &str) -> Found {
    match name {
        "start" => Found::Value(Value::Int(range.start)),
        "stop" => Found::Value(Value::Int(range.stop)),
        "step" => Found::Value(Value::Int(range.step)),
        _ => method(&[&TUPLE], &[], name),
    }
}

/// Returns whether every Python object has an attribute of this name, or one that templates try.
fn is_internal(name: &str) -> bool {
    [
        "__class__",
        "__doc__",
        "__init__",
        "__dict__",
        "__len__",
        "__getitem__",
        "__iter__",
        "__contains__",
        "__eq__",
        "__ne__",
        "__hash__",
        "__str__",
        "__repr__",
        "__dir__",
        "__format__",
        "__reduce__",
        "__reduce_ex__",
        "__sizeof__",
        "__new__",
        "__getattribute__",
        "__setattr__",
        "__delattr__",
        "__init_subclass__",
        "__subclasshook__",
    ]
    .contains(&name)
}

fn missing(value: &Value, name: &str) -> Value {
    Value::undefined(format!("a {} has no attribute '{name}'", value.kind()))
}

fn unsafe_attribute(value: &Value, name: &str) -> Value {
    Value::undefined(format!("the attribute '{name}' of a {} is not safe to use: it changes it", value.kind()))
}

/// Resolves the bounds of a slice: first place, place that is not reached, distance.
fn resolve(length: usize, bounds: &[Value; 3]) -> Result<(i64, i64, i64)> {
    let number = |bound: &Value| match bound {
        Value::None => Ok(None),
        bound => index(bound, "a slice").map(Some),
    };
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let step = number(&bounds[2])?.unwrap_or(1);
    if step == 0 {
        return Err(Fault::new("the step of a slice is 0"));
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(low, high);
    let start = number(&bounds[0])?.map_or(if step > 0 { low } else { high }, clamp);
    let stop = number(&bounds[1])?.map_or(if step > 0 { high } else { low }, clamp);
    Ok((start, stop, step))
}

fn places(length: usize, bounds: &[Value; 3]) -> Result<impl Iterator<Item = usize>> {
    let (start, stop, step) = resolve(length, bounds)?;
    let range = Progression { start, stop, step };
    Ok((0..range.len()).filter_map(move |place| usize::try_from(range.at(place)).ok()))
}
