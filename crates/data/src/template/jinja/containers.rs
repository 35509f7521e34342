//! Methods of lists, tuples and dicts that change nothing.

use std::rc::Rc;

use indexmap::IndexMap;

use super::{
    call::{Args, index, required},
    compare::{Key, equal},
    error::{Fault, Result},
    state::State,
    value::{Dict, Side, Value},
};

/// Calls a method of a dict.
pub(crate) fn dict_method(state: &mut State, dict: &Rc<Dict>, name: &str, args: Args) -> Result<Value> {
    match name {
        "get" => {
            let [key, default] = args.positional(name)?;
            let key = Key::of(&required(key, name)?, &state.meter)?;
            Ok(dict.map.get(&key).cloned().or(default).unwrap_or(Value::None))
        }
        "fromkeys" => from_keys(state, args),
        "copy" => {
            let []: [Option<Value>; 0] = args.positional(name)?;
            Value::dict(dict.map.clone(), &state.meter)
        }
        _ => {
            let []: [Option<Value>; 0] = args.positional(name)?;
            let side = match name {
                "keys" => Side::Keys,
                "values" => Side::Values,
                _ => Side::Items,
            };
            Ok(Value::View(side, dict.clone()))
        }
    }
}

/// Makes a dict with one value for every key.
pub(crate) fn from_keys(state: &mut State, args: Args) -> Result<Value> {
    let [keys, value] = args.positional("fromkeys")?;
    let value = value.unwrap_or(Value::None);
    let mut map = IndexMap::new();
    for key in state.items(&required(keys, "fromkeys")?)? {
        map.insert(Key::of(&key, &state.meter)?, value.clone());
    }
    Value::dict(map, &state.meter)
}

/// Calls a method of a list or tuple.
pub(crate) fn list_method(state: &mut State, items: &[Value], name: &str, args: Args) -> Result<Value> {
    if name == "copy" {
        let []: [Option<Value>; 0] = args.positional(name)?;
        return Value::list(items.to_vec(), &state.meter);
    }
    let [value, start, stop] = args.positional(name)?;
    let value = required(value, name)?;
    if name == "count" {
        if start.is_some() {
            return Err(Fault::new("count takes one argument"));
        }
        let mut count = 0;
        for item in items {
            count += i64::from(equal(item, &value, &state.meter)?);
        }
        return Ok(Value::Int(count));
    }
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let bound = |value: Option<Value>, default: i64| match value {
        None => Ok(default),
        Some(value) => index(&value, name).map(|at| if at < 0 { at.saturating_add(length).max(0) } else { at }),
    };
    let (start, stop) = (bound(start, 0)?, bound(stop, length)?);
    for (at, item) in items.iter().enumerate() {
        let place = i64::try_from(at).unwrap_or(i64::MAX);
        if (start..stop).contains(&place) && equal(item, &value, &state.meter)? {
            return Ok(Value::Int(place));
        }
    }
    Err(Fault::new("index finds no such item"))
}
