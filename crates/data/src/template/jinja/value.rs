//! Values as Python has them.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc};

use indexmap::IndexMap;
use num_bigint::BigInt;

use super::{
    compare::Key,
    error::{Fault, Result},
    limits::{MAX_TEXT_BYTES, MAX_VALUE_DEPTH, Meter},
};

/// A text; `markup` if it counts as escaped.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// The characters.
    pub text: Arc<str>,
    /// Whether it is Jinja2's `Markup`.
    pub markup: bool,
}

/// Items with what their nesting costs.
#[derive(Debug)]
pub(crate) struct Items {
    /// The items.
    pub list: Vec<Value>,
    /// Names of the first items, for the groups of `groupby`.
    pub names: &'static [&'static str],
    size: Size,
}

/// A dict in the order of insertion.
#[derive(Debug)]
pub(crate) struct Dict {
    /// The entries.
    pub map: IndexMap<Key, Value>,
    size: Size,
}

/// How deep and how large a value is, shared parts counted each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    depth: u32,
    nodes: u64,
}

/// An arithmetic progression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progression {
    /// First number.
    pub start: i64,
    /// The bound that is not reached.
    pub stop: i64,
    /// Distance.
    pub step: i64,
}

/// Which side of a dict a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// `keys()`.
    Keys,
    /// `values()`.
    Values,
    /// `items()`.
    Items,
}

/// What is left of an iterator that can be used once, with the fault that ends it.
#[derive(Debug)]
pub(crate) struct Once {
    /// Items not yet taken.
    pub left: VecDeque<Value>,
    /// Raised behind the last item.
    pub fault: Option<Box<Fault>>,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing under this name; says what in an error.
    Undefined(Arc<str>),
    /// `none`.
    None,
    /// `true`, `false`.
    Bool(bool),
    /// A small integer.
    Int(i64),
    /// An integer beyond 64 bits.
    Big(Rc<BigInt>),
    /// A float.
    Float(f64),
    /// A text.
    Text(Text),
    /// A list.
    List(Rc<Items>),
    /// A tuple.
    Tuple(Rc<Items>),
    /// A dict.
    Dict(Rc<Dict>),
    /// A view of a dict.
    View(Side, Rc<Dict>),
    /// `range`.
    Range(Progression),
    /// A generator.
    Once(Rc<RefCell<Once>>),
    /// `namespace()`, by its number.
    Namespace(usize),
    /// `cycler()`, by its number.
    Cycler(usize),
    /// `joiner()`, by its number.
    Joiner(usize),
    /// A macro, by its number.
    Macro(usize),
    /// A `loop`, by its number.
    Loop(usize),
    /// A global function.
    Function(&'static str),
    /// A method with its object.
    Method(Rc<Value>, &'static str),
}

impl Value {
    /// Makes a text.
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(Text { text: text.into(), markup: false })
    }

    /// Makes a text that counts as escaped where `markup`.
    pub(crate) fn marked(text: impl Into<Arc<str>>, markup: bool) -> Self {
        Self::Text(Text { text: text.into(), markup })
    }

    /// Makes what has no value.
    pub(crate) fn undefined(what: impl Into<Arc<str>>) -> Self {
        Self::Undefined(what.into())
    }

    /// Makes a list.
    pub(crate) fn list(list: Vec<Value>, meter: &Meter) -> Result<Self> {
        Ok(Self::List(Rc::new(Items::new(list, meter)?)))
    }

    /// Makes a tuple.
    pub(crate) fn tuple(list: Vec<Value>, meter: &Meter) -> Result<Self> {
        Ok(Self::Tuple(Rc::new(Items::new(list, meter)?)))
    }

    /// Makes a tuple whose items have names too.
    pub(crate) fn named(list: Vec<Value>, names: &'static [&'static str], meter: &Meter) -> Result<Self> {
        let mut items = Items::new(list, meter)?;
        items.names = names;
        Ok(Self::Tuple(Rc::new(items)))
    }

    /// Makes a dict.
    pub(crate) fn dict(map: IndexMap<Key, Value>, meter: &Meter) -> Result<Self> {
        let size = Size::of(map.iter().flat_map(both), map.len().saturating_mul(2), meter)?;
        Ok(Self::Dict(Rc::new(Dict { map, size })))
    }

    /// Makes an iterator that can be used once.
    pub(crate) fn once(items: Vec<Value>, fault: Option<Box<Fault>>) -> Self {
        Self::Once(Rc::new(RefCell::new(Once { left: items.into(), fault })))
    }

    /// Makes an integer.
    pub(crate) fn integer(number: BigInt) -> Self {
        match i64::try_from(&number) {
            Ok(small) => Self::Int(small),
            Err(_) => Self::Big(Rc::new(number)),
        }
    }

    /// Converts JSON.
    pub(crate) fn from_json(json: &serde_json::Value, meter: &Meter) -> Result<Self> {
        Ok(match json {
            serde_json::Value::Null => Self::None,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => from_number(number),
            serde_json::Value::String(text) => Self::text(text.as_str()),
            serde_json::Value::Array(list) => {
                let list = list.iter().map(|item| Self::from_json(item, meter)).collect::<Result<_>>()?;
                Self::list(list, meter)?
            }
            serde_json::Value::Object(map) => Self::from_object(map, meter)?,
        })
    }

    /// Converts a JSON object.
    pub(crate) fn from_object(map: &serde_json::Map<String, serde_json::Value>, meter: &Meter) -> Result<Self> {
        let mut dict = IndexMap::with_capacity(map.len());
        for (key, value) in map {
            dict.insert(Key::text(key), Self::from_json(value, meter)?);
        }
        Self::dict(dict, meter)
    }

    /// Returns the name of the value's type, as Python has it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Big(_) => "int",
            Self::Float(_) => "float",
            Self::Text(text) if text.markup => "Markup",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(Side::Keys, _) => "dict_keys",
            Self::View(Side::Values, _) => "dict_values",
            Self::View(Side::Items, _) => "dict_items",
            Self::Range(_) => "range",
            Self::Once(_) => "generator",
            Self::Namespace(_) => "namespace",
            Self::Cycler(_) => "cycler",
            Self::Joiner(_) => "joiner",
            Self::Macro(_) => "macro",
            Self::Loop(_) => "loop",
            Self::Function(_) | Self::Method(..) => "function",
        }
    }

    /// Returns the text.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(&text.text),
            _ => None,
        }
    }

    /// Returns whether the value counts as true; for a loop, which has no length here, yes.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.text.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.list.is_empty(),
            Self::Dict(dict) | Self::View(_, dict) => !dict.map.is_empty(),
            Self::Range(range) => range.len() > 0,
            _ => true,
        }
    }

    /// Returns what the value's nesting costs.
    pub(crate) fn size(&self) -> Size {
        match self {
            Self::List(items) | Self::Tuple(items) => items.size,
            Self::Dict(dict) | Self::View(_, dict) => dict.size,
            Self::Text(text) => Size { depth: 0, nodes: 1 + text.text.len() as u64 / 64 },
            Self::Method(object, _) => object.size(),
            _ => Size { depth: 0, nodes: 1 },
        }
    }
}

fn both<'a>(entry: (&'a Key, &'a Value)) -> [&'a Value; 2] {
    [&entry.0.0, entry.1]
}

fn from_number(number: &serde_json::Number) -> Value {
    match (number.as_i64(), number.as_u64()) {
        (Some(small), _) => Value::Int(small),
        (None, Some(large)) => Value::integer(large.into()),
        _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

impl Size {
    /// Returns the number of parts.
    pub(crate) fn nodes(self) -> u64 {
        self.nodes
    }

    fn of<'a>(values: impl Iterator<Item = &'a Value>, places: usize, meter: &Meter) -> Result<Self> {
        meter.places(places)?;
        let mut size = Self { depth: 0, nodes: 1 };
        for value in values {
            let inner = value.size();
            size.depth = size.depth.max(inner.depth);
            size.nodes = size.nodes.saturating_add(inner.nodes);
        }
        size.depth += 1;
        if size.depth > MAX_VALUE_DEPTH {
            return Err(Fault::bound("nested lists and dicts", MAX_VALUE_DEPTH.into()));
        }
        if size.nodes > MAX_TEXT_BYTES as u64 {
            return Err(Fault::bound("parts of one value", MAX_TEXT_BYTES as u64));
        }
        Ok(size)
    }
}

impl Items {
    fn new(list: Vec<Value>, meter: &Meter) -> Result<Self> {
        let size = Size::of(list.iter(), list.len(), meter)?;
        Ok(Self { list, names: &[], size })
    }
}

impl Progression {
    /// Returns how many numbers there are.
    pub(crate) fn len(&self) -> i64 {
        let (start, stop, step) = (i128::from(self.start), i128::from(self.stop), i128::from(self.step));
        let count = if step > 0 { (stop - start + step - 1) / step } else { (start - stop - step - 1) / -step };
        i64::try_from(count.max(0)).unwrap_or(i64::MAX)
    }

    /// Returns a number by its place.
    pub(crate) fn at(&self, place: i64) -> i64 {
        self.start.wrapping_add(self.step.wrapping_mul(place))
    }
}
