//! Calls: arguments, macros, global functions.

use indexmap::IndexMap;

use super::{
    ast::{Arguments, Call},
    compare::{Key, as_big, equal},
    error::{Fault, Result},
    filters::FILTERS,
    limits::MAX_RANGE,
    state::State,
    value::{Progression, Side, Value},
};

/// Arguments with their values.
#[derive(Debug, Default)]
pub(crate) struct Args {
    /// By place.
    pub list: Vec<Value>,
    /// By name.
    pub named: Vec<(String, Value)>,
}

impl Args {
    /// Puts arguments in the places of parameters.
    pub(crate) fn places<const N: usize>(self, callee: &str, parameters: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.list.len() > N {
            return Err(Fault::new(format!("{callee} takes not more than {N} arguments, got {}", self.list.len())));
        }
        let mut places = [const { None }; N];
        for (place, value) in places.iter_mut().zip(self.list) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match parameters.iter().position(|parameter| *parameter == name) {
                Some(at) if places[at].is_none() => places[at] = Some(value),
                Some(at) => return Err(Fault::new(format!("{callee} got {} twice", parameters[at]))),
                None => return Err(Fault::new(format!("{callee} has no such keyword argument"))),
            }
        }
        Ok(places)
    }

    /// Puts arguments in places, by place only.
    pub(crate) fn positional<const N: usize>(self, callee: &str) -> Result<[Option<Value>; N]> {
        if !self.named.is_empty() {
            return Err(Fault::new(format!("{callee} takes no keyword arguments")));
        }
        self.places(callee, [""; N])
    }
}

/// Returns an argument that must be there.
pub(crate) fn required(value: Option<Value>, callee: &str) -> Result<Value> {
    value.ok_or_else(|| Fault::new(format!("{callee} lacks an argument")))
}

/// Returns a value as an index.
pub(crate) fn index(value: &Value, callee: &str) -> Result<i64> {
    match value {
        Value::Bool(value) => Ok(i64::from(*value)),
        Value::Int(number) => Ok(*number),
        Value::Big(number) => Ok(if number.sign() == num_bigint::Sign::Minus { i64::MIN } else { i64::MAX }),
        Value::Undefined(what) => Err(Fault::new(what.to_string())),
        _ => Err(Fault::new(format!("{callee} needs an integer, got a {}", value.kind()))),
    }
}

/// Makes the fault of a filter or test that the template names and that does not exist.
pub(crate) fn unknown(what: &str, name: &str) -> Box<Fault> {
    let name: String = name.chars().take(40).collect();
    Fault::new(format!("unknown {what} '{name}'"))
}

impl<'a> State<'a> {
    /// Evaluates the arguments of a call.
    pub(crate) fn eval_arguments(&mut self, arguments: &'a Arguments) -> Result<Args> {
        let mut args = Args { list: self.eval_all(&arguments.positional)?, named: Vec::new() };
        for (name, value) in &arguments.named {
            args.named.push((name.clone(), self.eval(value)?));
        }
        if let Some(list) = &arguments.unpacked {
            let list = self.eval(list)?;
            args.list.extend(self.items(&list)?);
        }
        if let Some(named) = &arguments.unpacked_named {
            let Value::Dict(named) = self.eval(named)? else {
                return Err(Fault::new("what stands behind '**' is no dict"));
            };
            for (key, value) in &named.map {
                let name = key.0.as_text().ok_or_else(|| Fault::new("a keyword is no text"))?;
                if args.named.iter().any(|(found, _)| found == name) {
                    return Err(Fault::new("a keyword argument is repeated"));
                }
                args.named.push((name.to_owned(), value.clone()));
            }
        }
        Ok(args)
    }

    /// Applies a filter with the arguments of its call.
    pub(crate) fn filter_call(&mut self, call: &'a Call, value: Value) -> Result<Value> {
        if !FILTERS.contains(&call.name.as_str()) {
            return Err(unknown("filter", &call.name).at(call.line));
        }
        let args = self.eval_arguments(&call.arguments).map_err(|fault| fault.at(call.line))?;
        self.filter(&call.name, value, args).map_err(|fault| fault.at(call.line))
    }

    /// Calls a value.
    pub(crate) fn call(&mut self, callee: &Value, args: Args) -> Result<Value> {
        self.enter()?;
        let value = self.call_inner(callee, args)?;
        self.leave();
        Ok(value)
    }

    fn call_inner(&mut self, callee: &Value, args: Args) -> Result<Value> {
        match callee {
            Value::Macro(number) => self.call_macro(*number, args),
            Value::Function(name) => self.function(name, args),
            Value::Method(object, name) => self.method(object, name, args),
            Value::Loop(number) => self.call_loop(*number, args),
            Value::Joiner(number) => {
                let (separator, used) = &mut self.joiners[*number];
                let value = if *used { separator.clone() } else { Value::text("") };
                *used = true;
                Ok(value)
            }
            Value::Undefined(what) => Err(Fault::new(what.to_string())),
            _ => Err(Fault::new(format!("a {} cannot be called", callee.kind()))),
        }
    }

    fn call_loop(&mut self, number: usize, args: Args) -> Result<Value> {
        let [items] = args.places("loop", ["iterable"])?;
        let Some((parts, scope)) = self.loops[number].recursive else {
            return Err(Fault::new("a loop that calls itself must be marked as recursive"));
        };
        let depth0 = self.loops[number].depth0 + 1;
        let before = self.open_scope(scope)?;
        self.open_buffer();
        self.run_for(parts, &required(items, "loop")?, depth0)?;
        let text = self.close_buffer();
        self.close_scope(before);
        Ok(Value::marked(text, self.autoescape))
    }

    fn function(&mut self, name: &str, args: Args) -> Result<Value> {
        match name {
            "range" => range(args),
            "dict" => {
                let map = self.dict_of(args)?;
                Value::dict(map, &self.meter)
            }
            "namespace" => self.namespace(args),
            "cycler" => {
                self.meter.places(args.list.len())?;
                if args.list.is_empty() || !args.named.is_empty() {
                    return Err(Fault::new("cycler needs items, by place"));
                }
                self.cyclers.push((args.list, 0));
                Ok(Value::Cycler(self.cyclers.len() - 1))
            }
            "joiner" => {
                let [separator] = args.places("joiner", ["sep"])?;
                self.meter.places(1)?;
                self.joiners.push((separator.unwrap_or_else(|| Value::text(", ")), false));
                Ok(Value::Joiner(self.joiners.len() - 1))
            }
            "raise_exception" => {
                let [message] = args.places("raise_exception", ["message"])?;
                let message = self.str(&required(message, "raise_exception")?)?;
                Err(Fault::raised(message.to_string()))
            }
            "strftime_now" => {
                let [format] = args.places("strftime_now", ["format"])?;
                let format = required(format, "strftime_now")?;
                let format = format.as_text().ok_or_else(|| Fault::new("strftime_now needs a text"))?;
                let text = self.clock.format(format)?;
                self.meter.text(text.len())?;
                Ok(Value::text(text))
            }
            _ => Err(Fault::new(format!("{name} gives another text each time and is not supported"))),
        }
    }

    fn namespace(&mut self, args: Args) -> Result<Value> {
        self.meter.places(1)?;
        let attributes = self.dict_of(args)?;
        if attributes.keys().any(|key| key.0.as_text().is_some_and(|name| name.starts_with('_'))) {
            return Err(Fault::new("a namespace has no attributes that begin with an underscore"));
        }
        self.namespaces.push(attributes);
        Ok(Value::Namespace(self.namespaces.len() - 1))
    }

    /// Sets an attribute of a namespace.
    pub(crate) fn set_attribute(&mut self, number: usize, name: &str, value: Value) -> Result<()> {
        if name.starts_with('_') {
            return Err(Fault::new("a namespace has no attributes that begin with an underscore"));
        }
        self.meter.places(1)?;
        self.namespaces[number].insert(Key::text(name), value);
        Ok(())
    }

    /// Makes a dict as Python's `dict(…)`.
    fn dict_of(&mut self, args: Args) -> Result<IndexMap<Key, Value>> {
        if args.list.len() > 1 {
            return Err(Fault::new("dict takes not more than 1 argument by place"));
        }
        let mut map = IndexMap::new();
        match args.list.into_iter().next() {
            Some(Value::Dict(dict)) => map = dict.map.clone(),
            Some(Value::Namespace(_)) => return Err(Fault::new("a namespace cannot be iterated over")),
            Some(pairs) => {
                for pair in self.items(&pairs)? {
                    let [key, value]: [Value; 2] =
                        self.items(&pair)?.try_into().map_err(|_| Fault::new("dict needs pairs"))?;
                    map.insert(Key::of(&key, &self.meter)?, value);
                }
            }
            None => {}
        }
        for (name, value) in args.named {
            map.insert(Key::text(&name), value);
        }
        self.meter.places(map.len())?;
        Ok(map)
    }

    /// Makes a dict of keyword arguments.
    pub(crate) fn named_dict(&mut self, named: Vec<(String, Value)>) -> Result<Value> {
        let map = named.into_iter().map(|(name, value)| (Key::text(&name), value)).collect();
        Value::dict(map, &self.meter)
    }

    /// Calls a method of a value.
    fn method(&mut self, object: &Value, name: &'static str, args: Args) -> Result<Value> {
        self.meter.step(1 + object.size().nodes() / 16)?;
        match object {
            Value::Text(text) => self.text_method(text, name, args),
            Value::Dict(dict) => super::containers::dict_method(self, dict, name, args),
            Value::List(items) | Value::Tuple(items) => super::containers::list_method(self, &items.list, name, args),
            Value::Range(_) => {
                let items = self.items(object)?;
                super::containers::list_method(self, &items, name, args)
            }
            Value::View(Side::Keys | Side::Items, _) => {
                let (left, right) = (self.items(object)?, self.items(&required(args.list.into_iter().next(), name)?)?);
                let mut shared = false;
                for item in &left {
                    for other in &right {
                        shared |= equal(item, other, &self.meter)?;
                    }
                }
                Ok(Value::Bool(!shared))
            }
            Value::Loop(number) => self.loop_method(*number, name, args),
            Value::Cycler(number) => self.cycler_method(*number, name),
            Value::Function(_) => super::containers::from_keys(self, args),
            _ => super::numbers::method(self, object, name, args),
        }
    }

    fn loop_method(&mut self, number: usize, name: &str, args: Args) -> Result<Value> {
        if !args.named.is_empty() {
            return Err(Fault::new(format!("loop.{name} takes no keyword arguments")));
        }
        if name == "cycle" {
            let at = self.loops[number].index;
            let count = args.list.len();
            return args.list.into_iter().nth(at % count.max(1)).ok_or_else(|| Fault::new("loop.cycle needs items"));
        }
        let same = match &self.loops[number].changed {
            Some(before) if before.len() == args.list.len() => {
                let mut same = true;
                for (left, right) in before.iter().zip(&args.list) {
                    same &= equal(left, right, &self.meter)?;
                }
                same
            }
            _ => false,
        };
        if !same {
            self.loops[number].changed = Some(args.list);
        }
        Ok(Value::Bool(!same))
    }

    fn cycler_method(&mut self, number: usize, name: &str) -> Result<Value> {
        let (items, at) = &mut self.cyclers[number];
        if name == "reset" {
            *at = 0;
            return Ok(Value::None);
        }
        let value = items[*at].clone();
        *at = (*at + 1) % items.len();
        Ok(value)
    }
}

fn range(args: Args) -> Result<Value> {
    let [first, second, step] = args.positional("range")?;
    let number = |value: &Value| match (value, as_big(value)) {
        (Value::Undefined(what), _) => Err(Fault::new(what.to_string())),
        (_, Some(number)) => i64::try_from(number).map_err(|_| Fault::bound("numbers of a range", MAX_RANGE)),
        _ => Err(Fault::new(format!("range needs integers, got a {}", value.kind()))),
    };
    let first = number(&required(first, "range")?)?;
    let (start, stop) = match second {
        Some(second) => (first, number(&second)?),
        None => (0, first),
    };
    let step = step.as_ref().map_or(Ok(1), number)?;
    if step == 0 {
        return Err(Fault::new("the step of a range is 0"));
    }
    let range = Progression { start, stop, step };
    if range.len().unsigned_abs() > MAX_RANGE {
        return Err(Fault::bound("numbers of a range", MAX_RANGE));
    }
    Ok(Value::Range(range))
}
