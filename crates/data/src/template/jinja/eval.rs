//! Evaluates expressions.

use std::{cmp::Ordering, rc::Rc, sync::Arc};

use indexmap::IndexMap;
use num_bigint::BigInt;

use super::{
    ast::{Comparison, Constant, Expression, ExpressionKind, Link, LinkKind},
    call::unknown,
    checks::TESTS,
    compare::{Key, equal, order},
    error::{Fault, Result},
    escape::escape,
    number,
    state::State,
    value::{Side, Value},
};

impl<'a> State<'a> {
    /// Evaluates an expression.
    pub(crate) fn eval(&mut self, expression: &'a Expression) -> Result<Value> {
        self.enter()?;
        let value = self.eval_kind(expression).map_err(|fault| fault.at(expression.line))?;
        self.leave();
        Ok(value)
    }

    fn eval_kind(&mut self, expression: &'a Expression) -> Result<Value> {
        match &expression.kind {
            ExpressionKind::Constant(constant) => Ok(literal(constant)),
            ExpressionKind::Name(name) => Ok(self.lookup(name)),
            ExpressionKind::List(items) => {
                let items = self.eval_all(items)?;
                Value::list(items, &self.meter)
            }
            ExpressionKind::Tuple(items) => {
                let items = self.eval_all(items)?;
                Value::tuple(items, &self.meter)
            }
            ExpressionKind::Dict(entries) => self.eval_dict(entries),
            ExpressionKind::Arithmetic(first, rest) => {
                let mut value = self.eval(first)?;
                for (operator, operand) in rest {
                    let operand = self.eval(operand)?;
                    value = self.arithmetic(*operator, &value, &operand)?;
                }
                Ok(value)
            }
            ExpressionKind::Concat(items) => self.eval_concat(items),
            ExpressionKind::Compare(first, rest) => self.eval_compare(first, rest),
            ExpressionKind::And(items) => self.eval_until(items, false),
            ExpressionKind::Or(items) => self.eval_until(items, true),
            ExpressionKind::Not(value) => Ok(Value::Bool(!self.eval(value)?.truth())),
            ExpressionKind::Sign(negative, value) => number::sign(&self.eval(value)?, *negative),
            ExpressionKind::Condition(parts, otherwise) => {
                if self.eval(&parts[0])?.truth() {
                    return self.eval(&parts[1]);
                }
                match otherwise {
                    Some(otherwise) => self.eval(otherwise),
                    None => Ok(Value::undefined("a condition without an else is false")),
                }
            }
            ExpressionKind::Chain(first, links) => {
                let value = self.eval(first)?;
                self.eval_links(value, links)
            }
        }
    }

    fn eval_links(&mut self, mut value: Value, links: &'a [Link]) -> Result<Value> {
        for link in links {
            self.meter.step(1)?;
            value = self.eval_link(value, &link.kind).map_err(|fault| fault.at(link.line))?;
        }
        Ok(value)
    }

    fn eval_link(&mut self, value: Value, link: &'a LinkKind) -> Result<Value> {
        match link {
            LinkKind::Attribute(name) => self.attribute(&value, name),
            LinkKind::Item(index) => {
                let index = self.eval(index)?;
                self.item(&value, &index)
            }
            LinkKind::Slice(bounds) => {
                let mut values = [Value::None, Value::None, Value::None];
                for (place, bound) in values.iter_mut().zip(bounds.iter()) {
                    if let Some(bound) = bound {
                        *place = self.eval(bound)?;
                    }
                }
                self.slice(&value, &values)
            }
            LinkKind::Call(arguments) => {
                let args = self.eval_arguments(arguments)?;
                self.call(&value, args)
            }
            LinkKind::Filter(call) => self.filter_call(call, value),
            LinkKind::Test(call, _) if !TESTS.contains(&call.name.as_str()) => Err(unknown("test", &call.name)),
            LinkKind::Test(call, negated) => {
                let args = self.eval_arguments(&call.arguments)?;
                Ok(Value::Bool(self.test(&call.name, &value, args)? != *negated))
            }
        }
    }

    /// Calls what an expression names, with a caller.
    pub(crate) fn eval_call_with_caller(&mut self, call: &'a Expression, caller: Value) -> Result<Value> {
        let ExpressionKind::Chain(first, links) = &call.kind else {
            return Err(Fault::new("expected a call behind 'call'"));
        };
        let Some((Link { kind: LinkKind::Call(arguments), .. }, before)) = links.split_last() else {
            return Err(Fault::new("expected a call behind 'call'"));
        };
        let value = self.eval(first)?;
        let value = self.eval_links(value, before)?;
        let mut args = self.eval_arguments(arguments)?;
        args.named.push(("caller".into(), caller));
        self.call(&value, args)
    }

    pub(super) fn eval_all(&mut self, items: &'a [Expression]) -> Result<Vec<Value>> {
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.push(self.eval(item)?);
        }
        Ok(values)
    }

    fn eval_dict(&mut self, entries: &'a [(Expression, Expression)]) -> Result<Value> {
        let mut map = IndexMap::with_capacity(entries.len());
        for (key, value) in entries {
            let key = Key::of(&self.eval(key)?, &self.meter)?;
            map.insert(key, self.eval(value)?);
        }
        Value::dict(map, &self.meter)
    }

    fn eval_concat(&mut self, items: &'a [Expression]) -> Result<Value> {
        let values = self.eval_all(items)?;
        let marked = self.autoescape && values.iter().any(|value| matches!(value, Value::Text(text) if text.markup));
        let mut joined = String::new();
        for value in &values {
            let text = self.str(value)?;
            let escapes = marked && !matches!(value, Value::Text(text) if text.markup);
            let text = if escapes { Arc::from(escape(&text)) } else { text };
            self.meter.text(joined.len() + text.len())?;
            joined.push_str(&text);
        }
        Ok(Value::marked(joined, marked))
    }

    /// Evaluates up to the first value whose truth is `stop`.
    fn eval_until(&mut self, items: &'a [Expression], stop: bool) -> Result<Value> {
        let mut value = Value::None;
        for item in items {
            value = self.eval(item)?;
            if value.truth() == stop {
                break;
            }
        }
        Ok(value)
    }

    fn eval_compare(&mut self, first: &'a Expression, rest: &'a [(Comparison, Expression)]) -> Result<Value> {
        let mut left = self.eval(first)?;
        for (comparison, right) in rest {
            let right = self.eval(right)?;
            if !self.compare(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// Compares two values.
    pub(crate) fn compare(&mut self, comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
        let ordered = |test: fn(Ordering) -> bool, meter| Ok(order(left, right, meter)?.is_some_and(test));
        match comparison {
            Comparison::Eq => equal(left, right, &self.meter),
            Comparison::Ne => Ok(!equal(left, right, &self.meter)?),
            Comparison::Lt => ordered(Ordering::is_lt, &self.meter),
            Comparison::Le => ordered(Ordering::is_le, &self.meter),
            Comparison::Gt => ordered(Ordering::is_gt, &self.meter),
            Comparison::Ge => ordered(Ordering::is_ge, &self.meter),
            Comparison::In => self.contains(right, left),
            Comparison::NotIn => Ok(!self.contains(right, left)?),
        }
    }

    /// Returns whether a value is among those of a container.
    pub(crate) fn contains(&mut self, container: &Value, value: &Value) -> Result<bool> {
        match (container, value) {
            (Value::Text(text), Value::Text(part)) => {
                self.meter.read(text.text.len())?;
                Ok(text.text.contains(&*part.text))
            }
            (Value::Text(_), other) => Err(Fault::new(format!("a text contains no {}", other.kind()))),
            (Value::Dict(dict), value) | (Value::View(Side::Keys, dict), value) => {
                Ok(dict.map.contains_key(&Key::of(value, &self.meter)?))
            }
            _ => {
                for item in self.items(container)? {
                    if equal(&item, value, &self.meter)? || super::compare::identical(&item, value) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Returns the items of what can be iterated over.
    pub(crate) fn items(&mut self, value: &Value) -> Result<Vec<Value>> {
        let items = match value {
            Value::Undefined(_) => Vec::new(),
            Value::Text(text) => {
                self.meter.places(text.text.len())?;
                text.text.chars().map(|letter| Value::text(letter.to_string())).collect()
            }
            Value::List(items) | Value::Tuple(items) => items.list.clone(),
            Value::Dict(dict) => dict.side(Side::Keys, &self.meter)?,
            Value::View(side, dict) => dict.side(*side, &self.meter)?,
            Value::Range(range) => {
                self.meter.places(usize::try_from(range.len()).unwrap_or(usize::MAX))?;
                (0..range.len()).map(|place| Value::Int(range.at(place))).collect()
            }
            Value::Once(once) => {
                let mut once = once.borrow_mut();
                if let Some(fault) = once.fault.take() {
                    return Err(fault);
                }
                std::mem::take(&mut once.left).into()
            }
            _ => return Err(Fault::new(format!("a {} cannot be iterated over", value.kind()))),
        };
        self.meter.places(items.len())?;
        Ok(items)
    }
}

fn literal(constant: &Constant) -> Value {
    match constant {
        Constant::None => Value::None,
        Constant::Bool(value) => Value::Bool(*value),
        Constant::Int(number) => Value::Int(*number),
        Constant::Big(digits) => digits.parse::<BigInt>().map_or(Value::None, |number| Value::Big(Rc::new(number))),
        Constant::Float(number) => Value::Float(*number),
        Constant::Text(text) => Value::text(text.clone()),
    }
}
