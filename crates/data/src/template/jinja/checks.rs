//! The tests behind `is`.

use super::{
    ast::Comparison,
    call::{Args, required},
    compare::{Key, identical},
    error::{Fault, Result},
    filters::FILTERS,
    number::Operator,
    state::State,
    value::Value,
};

/// Names of all tests.
pub(crate) const TESTS: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

impl State<'_> {
    /// Runs a test.
    pub(crate) fn test(&mut self, name: &str, value: &Value, args: Args) -> Result<bool> {
        let comparison = match name {
            "==" | "eq" | "equalto" => Some(Comparison::Eq),
            "!=" | "ne" => Some(Comparison::Ne),
            ">" | "gt" | "greaterthan" => Some(Comparison::Gt),
            ">=" | "ge" => Some(Comparison::Ge),
            "<" | "lt" | "lessthan" => Some(Comparison::Lt),
            "<=" | "le" => Some(Comparison::Le),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let [other] = args.positional(name)?;
            return self.compare(comparison, value, &required(other, name)?);
        }
        match name {
            "sameas" => {
                let [other] = args.places(name, ["other"])?;
                Ok(identical(value, &required(other, name)?))
            }
            "in" => {
                let [container] = args.places(name, ["seq"])?;
                self.contains(&required(container, name)?, value)
            }
            "divisibleby" => {
                let [number] = args.places(name, ["num"])?;
                let rest = self.arithmetic(Operator::Mod, value, &required(number, name)?)?;
                self.compare(Comparison::Eq, &rest, &Value::Int(0))
            }
            "odd" | "even" => {
                let []: [Option<Value>; 0] = args.positional(name)?;
                let rest = self.arithmetic(Operator::Mod, value, &Value::Int(2))?;
                self.compare(Comparison::Eq, &rest, &Value::Int(i64::from(name == "odd")))
            }
            _ => {
                let []: [Option<Value>; 0] = args.positional(name)?;
                self.kind_test(name, value)
            }
        }
    }

    fn kind_test(&mut self, name: &str, value: &Value) -> Result<bool> {
        Ok(match name {
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_) | Value::Big(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Big(_) | Value::Float(_)),
            "string" => matches!(value, Value::Text(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "sequence" => {
                matches!(
                    value,
                    Value::Undefined(_)
                        | Value::Text(_)
                        | Value::List(_)
                        | Value::Tuple(_)
                        | Value::Dict(_)
                        | Value::Range(_)
                )
            }
            "iterable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Text(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::View(..)
                    | Value::Range(_)
                    | Value::Once(_)
                    | Value::Loop(_)
            ),
            "callable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Macro(_)
                    | Value::Function(_)
                    | Value::Method(..)
                    | Value::Loop(_)
                    | Value::Joiner(_)
            ),
            "escaped" => matches!(value, Value::Text(text) if text.markup),
            "filter" | "test" if Key::of(value, &self.meter).is_err() => {
                return Err(Fault::new(format!("a {} is no name", value.kind())));
            }
            "filter" => value.as_text().is_some_and(|name| FILTERS.contains(&name)),
            "test" => value.as_text().is_some_and(|name| TESTS.contains(&name)),
            "lower" | "upper" => {
                let text = self.str(value)?;
                self.meter.step(1 + text.len() as u64 / 8)?;
                let method = if name == "lower" { "islower" } else { "isupper" };
                super::strings::tests(&text, method).unwrap_or(false)
            }
            // The name may come from the conversation.
            _ => return Err(Fault::new("unknown test")),
        })
    }
}
