//! Equality, order and hashing of values, as Python's.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    rc::Rc,
};

use num_bigint::BigInt;

use super::{
    error::{Fault, Result},
    limits::Meter,
    number::{self, Number},
    value::{Side, Value},
};

/// A value that can be a key of a dict.
#[derive(Debug, Clone)]
pub(crate) struct Key(pub Value);

impl Key {
    /// Makes a key of a text.
    pub(crate) fn text(text: &str) -> Self {
        Self(Value::text(text))
    }

    /// Makes a key; lists and dicts are none.
    pub(crate) fn of(value: &Value, meter: &Meter) -> Result<Self> {
        meter.step(value.size().nodes())?;
        if hashable(value) { Ok(Self(value.clone())) } else { Err(unhashable(value)) }
    }
}

fn unhashable(value: &Value) -> Box<Fault> {
    Fault::new(format!("a {} cannot be a key", value.kind()))
}

fn hashable(value: &Value) -> bool {
    match value {
        Value::List(_) | Value::Dict(_) | Value::View(..) => false,
        Value::Tuple(items) => items.list.iter().all(hashable),
        _ => true,
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(&self.0, state);
    }
}

/// Hashes so that equal values of different types, as 1, 1.0 and true, agree.
fn hash<H: Hasher>(value: &Value, state: &mut H) {
    match value {
        Value::Text(text) => text.text.hash(state),
        Value::Bool(value) => i64::from(*value).hash(state),
        Value::Int(number) => number.hash(state),
        Value::Big(number) => number.hash(state),
        Value::Float(number) => hash_float(*number, state),
        Value::Tuple(items) => items.list.iter().for_each(|item| hash(item, state)),
        other => other.kind().hash(state),
    }
}

fn hash_float<H: Hasher>(number: f64, state: &mut H) {
    match number::exact(number).map(Value::integer) {
        Some(Value::Int(small)) => small.hash(state),
        Some(Value::Big(large)) => large.hash(state),
        _ => number.to_bits().hash(state),
    }
}

/// Returns whether two values are equal, counting the work.
pub(crate) fn equal(left: &Value, right: &Value, meter: &Meter) -> Result<bool> {
    meter.step(left.size().nodes().min(right.size().nodes()))?;
    Ok(same(left, right))
}

fn same(left: &Value, right: &Value) -> bool {
    if let (Some(left), Some(right)) = (Number::of(left), Number::of(right)) {
        return number::compare(&left, &right) == Some(Ordering::Equal);
    }
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Text(left), Value::Text(right)) => left.text == right.text,
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            Rc::ptr_eq(left, right) || all_same(&left.list, &right.list)
        }
        (Value::Dict(left), Value::Dict(right)) => {
            left.map.len() == right.map.len()
                && left.map.iter().all(|(key, value)| right.map.get(key).is_some_and(|other| same_item(value, other)))
        }
        (Value::View(left_side, left), Value::View(right_side, right)) => {
            same_views((*left_side, *right_side), left, right)
        }
        (Value::Range(left), Value::Range(right)) => {
            left.len() == right.len()
                && (left.len() == 0 || left.start == right.start && (left.len() == 1 || left.step == right.step))
        }
        _ => identical(left, right),
    }
}

/// Compares as Python's containers do: what is identical is equal, so is a NaN with itself.
fn same_item(left: &Value, right: &Value) -> bool {
    same(left, right) || matches!((left, right), (Value::Float(a), Value::Float(b)) if a.to_bits() == b.to_bits())
}

fn all_same(left: &[Value], right: &[Value]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_item(left, right))
}

fn same_views(sides: (Side, Side), left: &Rc<super::value::Dict>, right: &Rc<super::value::Dict>) -> bool {
    let keys = || left.map.len() == right.map.len() && left.map.keys().all(|key| right.map.contains_key(key));
    match sides {
        (Side::Keys, Side::Keys) => keys(),
        (Side::Items, Side::Items) => keys() && left.map.iter().all(|(key, value)| same_item(value, &right.map[key])),
        _ => false,
    }
}

/// Returns whether two values are one object, as `is`.
pub(crate) fn identical(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left.text == right.text && left.markup == right.markup,
        (Value::Float(left), Value::Float(right)) => left.to_bits() == right.to_bits(),
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => Rc::ptr_eq(left, right),
        (Value::Dict(left), Value::Dict(right)) => Rc::ptr_eq(left, right),
        (Value::Once(left), Value::Once(right)) => Rc::ptr_eq(left, right),
        (Value::Namespace(left), Value::Namespace(right))
        | (Value::Cycler(left), Value::Cycler(right))
        | (Value::Joiner(left), Value::Joiner(right))
        | (Value::Macro(left), Value::Macro(right))
        | (Value::Loop(left), Value::Loop(right)) => left == right,
        (Value::Function(left), Value::Function(right)) => left == right,
        (Value::Method(left, left_name), Value::Method(right, right_name)) => {
            left_name == right_name && identical(left, right)
        }
        _ => false,
    }
}

/// Orders two values, counting the work; `None` where a NaN has no order.
pub(crate) fn order(left: &Value, right: &Value, meter: &Meter) -> Result<Option<Ordering>> {
    meter.step(left.size().nodes().min(right.size().nodes()))?;
    if let (Some(left), Some(right)) = (Number::of(left), Number::of(right)) {
        return Ok(number::compare(&left, &right));
    }
    match (left, right) {
        (Value::Undefined(what), _) | (_, Value::Undefined(what)) => Err(Fault::new(what.to_string())),
        (Value::Text(left), Value::Text(right)) => Ok(Some(left.text.cmp(&right.text))),
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            order_items(&left.list, &right.list, meter)
        }
        _ => Err(Fault::new(format!("a {} and a {} have no order", left.kind(), right.kind()))),
    }
}

fn order_items(left: &[Value], right: &[Value], meter: &Meter) -> Result<Option<Ordering>> {
    for (left, right) in left.iter().zip(right) {
        if !same_item(left, right) {
            return order(left, right, meter);
        }
    }
    Ok(Some(left.len().cmp(&right.len())))
}

/// Sorts stably by keys; a fault in a comparison ends it.
pub(crate) fn sort_by_keys(mut items: Vec<(Value, Value)>, reverse: bool, meter: &Meter) -> Result<Vec<Value>> {
    let mut fault = None;
    if reverse {
        items.reverse();
    }
    items.sort_by(|left, right| match order(&left.0, &right.0, meter) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            fault.get_or_insert(error);
            Ordering::Equal
        }
    });
    if reverse {
        items.reverse();
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(items.into_iter().map(|(_, item)| item).collect()),
    }
}

/// Returns the value as an integer, if it is one.
pub(crate) fn as_big(value: &Value) -> Option<BigInt> {
    match value {
        Value::Bool(value) => Some(BigInt::from(i64::from(*value))),
        Value::Int(number) => Some(BigInt::from(*number)),
        Value::Big(number) => Some((**number).clone()),
        _ => None,
    }
}
