//! Arithmetic on values that are no numbers: texts, lists and tuples.

use super::{
    compare::as_big,
    error::{Fault, Result},
    escape::escape,
    limits::{MAX_ALLOCATED_BYTES, MAX_TEXT_BYTES},
    number::{Number, Operator, compute},
    state::State,
    value::{Text, Value},
};

impl State<'_> {
    /// Computes with two values.
    pub(crate) fn arithmetic(&mut self, operator: Operator, left: &Value, right: &Value) -> Result<Value> {
        if let (Value::Text(text), Operator::Mod) = (left, operator) {
            return self.percent(text, right);
        }
        if let Value::Undefined(what) = left {
            return Err(Fault::new(what.to_string()));
        }
        if let Value::Undefined(what) = right {
            return Err(Fault::new(what.to_string()));
        }
        if let (Some(left), Some(right)) = (Number::of(left), Number::of(right)) {
            return compute(operator, left, right, &self.meter);
        }
        match (operator, left, right) {
            (Operator::Add, Value::Text(left), Value::Text(right)) => self.join_texts(left, right),
            (Operator::Add, Value::List(left), Value::List(right)) => {
                self.meter.places(left.list.len() + right.list.len())?;
                Value::list(left.list.iter().chain(&right.list).cloned().collect(), &self.meter)
            }
            (Operator::Add, Value::Tuple(left), Value::Tuple(right)) => {
                self.meter.places(left.list.len() + right.list.len())?;
                Value::tuple(left.list.iter().chain(&right.list).cloned().collect(), &self.meter)
            }
            (Operator::Mul, sequence, count) if as_big(count).is_some() => self.repeat(sequence, count),
            (Operator::Mul, count, sequence) if as_big(count).is_some() => self.repeat(sequence, count),
            _ => Err(Fault::new(format!("a {} and a {} do not go with this operator", left.kind(), right.kind()))),
        }
    }

    fn join_texts(&mut self, left: &Text, right: &Text) -> Result<Value> {
        let markup = left.markup || right.markup;
        let part = |text: &Text| {
            if markup && !text.markup { escape(&text.text).into() } else { text.text.clone() }
        };
        self.meter.text(left.text.len() + right.text.len())?;
        let (left, right) = (part(left), part(right));
        let mut joined = String::with_capacity(left.len() + right.len());
        joined.push_str(&left);
        joined.push_str(&right);
        Ok(Value::marked(joined, markup))
    }

    fn repeat(&mut self, sequence: &Value, count: &Value) -> Result<Value> {
        let count = as_big(count).and_then(|count| i64::try_from(count).ok()).unwrap_or(i64::MAX);
        let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
        match sequence {
            Value::Text(text) => {
                self.meter.text(text.text.len().saturating_mul(count))?;
                let count = if text.text.is_empty() { 0 } else { count };
                Ok(Value::marked(text.text.repeat(count), text.markup))
            }
            Value::List(items) => Value::list(self.repeated(&items.list, count)?, &self.meter),
            Value::Tuple(items) => Value::tuple(self.repeated(&items.list, count)?, &self.meter),
            _ => Err(Fault::new(format!("a {} cannot be repeated", sequence.kind()))),
        }
    }

    fn repeated(&mut self, items: &[Value], count: usize) -> Result<Vec<Value>> {
        let length = items.len().saturating_mul(count);
        if length > MAX_TEXT_BYTES {
            return Err(Fault::bound("allocated bytes", MAX_ALLOCATED_BYTES));
        }
        self.meter.places(length)?;
        Ok(items.iter().cycle().take(length).cloned().collect())
    }
}
