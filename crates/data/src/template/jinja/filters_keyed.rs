//! Filters that look at an attribute of each item, or call another filter or test.

use super::{
    call::{Args, required},
    compare::{Key, equal, order, sort_by_keys},
    error::{Fault, Result},
    number::Operator,
    state::State,
    value::{Side, Value},
};

/// A way to an attribute: names and places, one after another.
pub(crate) type Path = Vec<Value>;

/// Reads a way to an attribute, as `address.city` or `0`.
pub(crate) fn path(attribute: &Value) -> Result<Path> {
    Ok(match attribute {
        Value::None => Vec::new(),
        Value::Text(text) => text.text.split('.').map(step).collect(),
        other => vec![other.clone()],
    })
}

fn step(part: &str) -> Value {
    let digits = !part.is_empty() && part.chars().all(super::unicode::is_digit);
    let number = part.parse().ok().filter(|_| digits);
    number.map_or_else(|| Value::text(part), Value::Int)
}

/// What sorting and grouping look at.
struct Keyed {
    paths: Vec<Path>,
    single: bool,
    ignore_case: bool,
    default: Option<Value>,
}

fn truth(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.truth())
}

impl State<'_> {
    /// Applies a filter that looks at each item.
    pub(crate) fn keyed_filter(&mut self, name: &str, value: Value, args: Args) -> Result<Value> {
        match name {
            "map" => self.map(&value, args),
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(name, &value, args),
            "dictsort" => self.dict_sort(&value, args),
            "groupby" => self.group_by(&value, args),
            "sum" => self.sum(&value, args),
            "sort" => {
                let [reverse, case, attribute] = args.places(name, ["reverse", "case_sensitive", "attribute"])?;
                let paths = match &attribute {
                    Some(Value::Text(text)) => {
                        text.text.split(',').map(|part| path(&Value::text(part))).collect::<Result<_>>()?
                    }
                    other => vec![path(other.as_ref().unwrap_or(&Value::None))?],
                };
                let keyed = Keyed { paths, single: false, ignore_case: !truth(case), default: None };
                let items = self.items(&value)?;
                let keys = self.keys(items, &keyed)?;
                Value::list(sort_by_keys(keys, truth(reverse), &self.meter)?, &self.meter)
            }
            _ => {
                let [case, attribute] = args.places(name, ["case_sensitive", "attribute"])?;
                let paths = vec![path(attribute.as_ref().unwrap_or(&Value::None))?];
                let keyed = Keyed { paths, single: true, ignore_case: !truth(case), default: None };
                if name == "unique" { self.unique(&value, &keyed) } else { self.extreme(&value, &keyed, name == "max") }
            }
        }
    }

    /// Follows a way to an attribute.
    pub(crate) fn follow(&mut self, item: &Value, path: &Path, default: Option<&Value>) -> Result<Value> {
        let mut value = item.clone();
        for part in path {
            value = self.item(&value, part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, default) {
                value = default.clone();
            }
        }
        Ok(value)
    }

    fn key(&mut self, item: &Value, keyed: &Keyed) -> Result<Value> {
        let mut keys = Vec::with_capacity(keyed.paths.len());
        for path in &keyed.paths {
            let key = self.follow(item, path, keyed.default.as_ref())?;
            keys.push(match key {
                Value::Text(text) if keyed.ignore_case => {
                    self.meter.text(text.text.len())?;
                    Value::marked(text.text.to_lowercase(), text.markup)
                }
                other => other,
            });
        }
        match keys.pop() {
            Some(key) if keyed.single => Ok(key),
            last => {
                keys.extend(last);
                Value::list(keys, &self.meter)
            }
        }
    }

    fn keys(&mut self, items: Vec<Value>, keyed: &Keyed) -> Result<Vec<(Value, Value)>> {
        items.into_iter().map(|item| Ok((self.key(&item, keyed)?, item))).collect()
    }

    fn unique(&mut self, value: &Value, keyed: &Keyed) -> Result<Value> {
        let mut seen = indexmap::IndexSet::new();
        let mut kept = Vec::new();
        for item in self.items(value)? {
            let key = match self.key(&item, keyed).and_then(|key| Key::of(&key, &self.meter)) {
                Ok(key) => key,
                Err(fault) => return Ok(Value::once(kept, Some(fault))),
            };
            if seen.insert(key) {
                kept.push(item);
            }
        }
        Ok(Value::once(kept, None))
    }

    fn extreme(&mut self, value: &Value, keyed: &Keyed, largest: bool) -> Result<Value> {
        let items = self.items(value)?;
        let mut best: Option<(Value, Value)> = None;
        for (key, item) in self.keys(items, keyed)? {
            let better = match &best {
                None => true,
                Some((found, _)) if largest => order(&key, found, &self.meter)?.is_some_and(|order| order.is_gt()),
                Some((found, _)) => order(&key, found, &self.meter)?.is_some_and(|order| order.is_lt()),
            };
            if better {
                best = Some((key, item));
            }
        }
        Ok(best.map_or_else(|| Value::undefined("there is no item to choose from"), |(_, item)| item))
    }

    fn dict_sort(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [case, by, reverse] = args.places("dictsort", ["case_sensitive", "by", "reverse"])?;
        let at = match by.as_ref().map_or(Some("key"), |by| by.as_text()) {
            Some("key") => 0,
            Some("value") => 1,
            _ => return Err(Fault::new("dictsort sorts by 'key' or 'value'")),
        };
        let Value::Dict(dict) = value else {
            return Err(Fault::new(format!("dictsort needs a dict, got a {}", value.kind())));
        };
        let paths = vec![vec![Value::Int(at)]];
        let keyed = Keyed { paths, single: true, ignore_case: !truth(case), default: None };
        let keys = self.keys(dict.side(Side::Items, &self.meter)?, &keyed)?;
        Value::list(sort_by_keys(keys, truth(reverse), &self.meter)?, &self.meter)
    }

    fn group_by(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [attribute, default, case] = args.places("groupby", ["attribute", "default", "case_sensitive"])?;
        let path = path(&required(attribute, "groupby")?)?;
        let default = default.filter(|default| !matches!(default, Value::None));
        let keyed = Keyed { paths: vec![path.clone()], single: true, ignore_case: !truth(case), default };
        let items = self.items(value)?;
        let keys = self.keys(items, &keyed)?;
        let sorted = sort_by_keys(keys, false, &self.meter)?;
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        for item in sorted {
            let key = self.key(&item, &keyed)?;
            match groups.last_mut() {
                Some((found, group)) if equal(found, &key, &self.meter)? => group.push(item),
                _ => groups.push((key, vec![item])),
            }
        }
        let mut result = Vec::with_capacity(groups.len());
        for (_, group) in groups {
            // The key as the first item has it, not in lower case.
            let key = self.follow(&group[0], &path, keyed.default.as_ref())?;
            let group = Value::list(group, &self.meter)?;
            result.push(Value::named(vec![key, group], &["grouper", "list"], &self.meter)?);
        }
        Value::list(result, &self.meter)
    }

    fn sum(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [attribute, start] = args.places("sum", ["attribute", "start"])?;
        let path = path(&attribute.unwrap_or(Value::None))?;
        let mut sum = start.unwrap_or(Value::Int(0));
        if let Value::Text(_) = sum {
            return Err(Fault::new("sum does not join texts"));
        }
        for item in self.items(value)? {
            let item = self.follow(&item, &path, None)?;
            sum = self.arithmetic(Operator::Add, &sum, &item)?;
        }
        Ok(sum)
    }

    fn map(&mut self, value: &Value, mut args: Args) -> Result<Value> {
        if !value.truth() {
            return Ok(Value::once(Vec::new(), None));
        }
        let attribute = args.named.iter().position(|(name, _)| name == "attribute");
        let mut results = Vec::new();
        let (Some(at), true) = (attribute, args.list.is_empty()) else {
            let Some(Value::Text(name)) = args.list.first().cloned() else {
                return Ok(Value::once(results, Some(Fault::new("map needs the name of a filter, or an attribute"))));
            };
            let rest = args.list.split_off(1);
            for item in self.items(value)? {
                let args = Args { list: rest.clone(), named: args.named.clone() };
                match self.filter(&name.text, item, args) {
                    Ok(result) => results.push(result),
                    Err(fault) => return Ok(Value::once(results, Some(fault))),
                }
            }
            return Ok(Value::once(results, None));
        };
        let (_, attribute) = args.named.remove(at);
        let [default] = args.places("map", ["default"])?;
        let default = default.filter(|default| !matches!(default, Value::None));
        let path = path(&attribute)?;
        for item in self.items(value)? {
            match self.follow(&item, &path, default.as_ref()) {
                Ok(result) => results.push(result),
                Err(fault) => return Ok(Value::once(results, Some(fault))),
            }
        }
        Ok(Value::once(results, None))
    }

    fn select(&mut self, name: &str, value: &Value, mut args: Args) -> Result<Value> {
        if !value.truth() {
            return Ok(Value::once(Vec::new(), None));
        }
        let wanted = name.starts_with("select");
        let attribute = if name.ends_with("attr") {
            if args.list.is_empty() {
                return Ok(Value::once(Vec::new(), Some(Fault::new(format!("{name} needs an attribute")))));
            }
            path(&args.list.remove(0))?
        } else {
            Vec::new()
        };
        let mut kept = Vec::new();
        for item in self.items(value)? {
            let args = Args { list: args.list.clone(), named: args.named.clone() };
            match self.passes(&item, &attribute, args) {
                Ok(passes) if passes == wanted => kept.push(item),
                Ok(_) => {}
                Err(fault) => return Ok(Value::once(kept, Some(fault))),
            }
        }
        Ok(Value::once(kept, None))
    }

    fn passes(&mut self, item: &Value, attribute: &Path, mut args: Args) -> Result<bool> {
        let value = self.follow(item, attribute, None)?;
        if args.list.is_empty() {
            return Ok(value.truth());
        }
        let name = args.list.remove(0);
        let name = name.as_text().ok_or_else(|| Fault::new("the name of a test is no text"))?;
        self.test(name, &value, args)
    }
}
