//! Runs statements.

use super::{
    ast::{Body, Call, Expression, For, Macro, Statement, StatementKind, Target},
    call::Args,
    error::{Fault, Result},
    escape::escape,
    state::{Loop, MacroValue, State},
    value::Value,
};

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// At its end.
    Next,
    /// At a `break`.
    Break,
    /// At a `continue`.
    Continue,
}

impl<'a> State<'a> {
    /// Runs a body in the scope under way.
    pub(crate) fn run(&mut self, body: &'a Body) -> Result<Flow> {
        for name in &body.unset {
            self.assign(name, Value::undefined(format!("'{name}' is undefined")));
        }
        for statement in &body.statements {
            self.enter()?;
            let flow = self.statement(statement).map_err(|fault| fault.at(statement.line))?;
            self.leave();
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// Runs a body in a scope of its own.
    fn run_inside(&mut self, body: &'a Body) -> Result<Flow> {
        let before = self.open_scope(self.scope())?;
        let flow = self.run(body)?;
        self.close_scope(before);
        Ok(flow)
    }

    fn statement(&mut self, statement: &'a Statement) -> Result<Flow> {
        match &statement.kind {
            StatementKind::Data(text) => self.write(text)?,
            StatementKind::Print(value) => self.print(value)?,
            StatementKind::If(branches, otherwise) => {
                for branch in branches {
                    if self.eval(&branch.test)?.truth() {
                        return self.run(&branch.body);
                    }
                }
                return self.run(otherwise);
            }
            StatementKind::For(parts) => self.start_for(parts)?,
            StatementKind::Set(target, value) => {
                let value = self.eval(value)?;
                self.assign_target(target, value)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let (flow, value) = self.collect(body, filters)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                self.assign_target(target, value)?;
            }
            StatementKind::FilterBlock(filters, body) => {
                let (flow, value) = self.collect(body, filters)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                self.print_value(&value)?;
            }
            StatementKind::Macro(source) => self.define(source)?,
            StatementKind::CallBlock(source, call) => self.call_block(source, call)?,
            StatementKind::With(values, body) => return self.with(values, body),
            StatementKind::Block(body) => {
                let before = self.open_scope(0)?;
                self.run(body)?;
                self.close_scope(before);
            }
            StatementKind::Generation(body) => self.generation(body)?,
            StatementKind::Autoescape(on, body) => {
                let on = self.eval(on)?.truth();
                let before = std::mem::replace(&mut self.autoescape, on);
                let flow = self.run_inside(body)?;
                self.autoescape = before;
                return Ok(flow);
            }
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
            StatementKind::Refused(name) => {
                return Err(Fault::new(format!("'{name}' needs other templates, which a model folder does not have")));
            }
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, value: &'a Expression) -> Result<()> {
        let value = self.eval(value)?;
        self.print_value(&value)
    }

    fn print_value(&mut self, value: &Value) -> Result<()> {
        let escapes = self.autoescape && !matches!(value, Value::Text(text) if text.markup);
        let text = self.str(value)?;
        if escapes { self.write(&escape(&text)) } else { self.write(&text) }
    }

    /// Collects what a body writes, and filters it.
    fn collect(&mut self, body: &'a Body, filters: &'a [Call]) -> Result<(Flow, Value)> {
        self.open_buffer();
        let flow = self.run_inside(body)?;
        let mut value = Value::marked(self.close_buffer(), self.autoescape);
        if flow == Flow::Next {
            for filter in filters {
                value = self.filter_call(filter, value)?;
            }
        }
        Ok((flow, value))
    }

    fn with(&mut self, values: &'a [(Target, Expression)], body: &'a Body) -> Result<Flow> {
        let mut given = Vec::with_capacity(values.len());
        for (_, value) in values {
            given.push(self.eval(value)?);
        }
        let before = self.open_scope(self.scope())?;
        for ((target, _), value) in values.iter().zip(given) {
            self.assign_target(target, value)?;
        }
        let flow = self.run(body)?;
        self.close_scope(before);
        Ok(flow)
    }

    fn define(&mut self, source: &'a Macro) -> Result<()> {
        let value = self.new_macro(source)?;
        if let Some(name) = &source.name {
            self.assign(name, value);
        }
        Ok(())
    }

    fn new_macro(&mut self, source: &'a Macro) -> Result<Value> {
        self.meter.places(1)?;
        self.capture_scope();
        self.macros.push(MacroValue { source, scope: self.scope() });
        Ok(Value::Macro(self.macros.len() - 1))
    }

    fn call_block(&mut self, source: &'a Macro, call: &'a Expression) -> Result<()> {
        let caller = self.new_macro(source)?;
        let value = self.eval_call_with_caller(call, caller)?;
        self.print_value(&value)
    }

    fn generation(&mut self, body: &'a Body) -> Result<()> {
        self.open_buffer();
        self.run_inside(body)?;
        let text = self.close_buffer();
        self.mark(&text);
        self.write(&text)
    }

    /// Assigns a value to a target; several targets take as many items.
    pub(crate) fn assign_target(&mut self, target: &'a Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.assign(name, value),
            Target::Attribute(name, attribute) => {
                let Value::Namespace(number) = self.lookup(name) else {
                    return Err(Fault::new(format!("cannot assign an attribute of '{name}': it is no namespace")));
                };
                self.set_attribute(number, attribute, value)?;
            }
            Target::Tuple(targets) => {
                let items = self.items(&value)?;
                if items.len() != targets.len() {
                    let (got, expected) = (items.len(), targets.len());
                    return Err(Fault::new(format!("cannot assign {got} items to {expected} names")));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign_target(target, item)?;
                }
            }
        }
        Ok(())
    }

    fn start_for(&mut self, parts: &'a For) -> Result<()> {
        let items = self.eval(&parts.items)?;
        if !parts.recursive {
            return self.run_for(parts, &items, 0);
        }
        self.open_buffer();
        self.run_for(parts, &items, 0)?;
        let text = self.close_buffer();
        self.write(&text)
    }

    /// Runs a loop over the items of a value.
    pub(crate) fn run_for(&mut self, parts: &'a For, items: &Value, depth0: usize) -> Result<()> {
        let items = self.items(items)?;
        let items = self.counting(parts, items)?;
        let (outside, buffers, length) = (self.scope(), self.buffers(), items.len());
        self.meter.places(2)?;
        let recursive = parts.recursive.then_some((parts, outside));
        self.loops.push(Loop { items, length, index: 0, depth0, recursive, changed: None });
        let number = self.loops.len() - 1;
        for index in 0..length {
            self.loops[number].index = index;
            let item = self.loops[number].items[index].clone();
            let before = self.open_scope(outside)?;
            self.assign_target(&parts.target, item)?;
            self.assign("loop", Value::Loop(number));
            let flow = self.run(&parts.body)?;
            self.close_scope(before);
            if flow != Flow::Next {
                self.drop_buffers(buffers);
            }
            if flow == Flow::Break {
                break;
            }
        }
        self.loops[number].items = Vec::new();
        if length == 0 {
            self.run_inside(&parts.otherwise)?;
        }
        Ok(())
    }

    /// Keeps the items that pass the loop's test.
    fn counting(&mut self, parts: &'a For, items: Vec<Value>) -> Result<Vec<Value>> {
        let Some(test) = &parts.test else { return Ok(items) };
        let mut kept = Vec::new();
        for item in items {
            let before = self.open_scope(self.scope())?;
            self.assign_target(&parts.target, item.clone())?;
            let passes = self.eval(test)?.truth();
            self.close_scope(before);
            if passes {
                kept.push(item);
            }
        }
        Ok(kept)
    }

    /// Calls a macro: returns what it writes.
    pub(crate) fn call_macro(&mut self, number: usize, args: Args) -> Result<Value> {
        let MacroValue { source, scope } = self.macros[number];
        let before = self.open_scope(scope)?;
        self.bind(source, args)?;
        self.open_buffer();
        let autoescape = self.autoescape;
        self.run(&source.body)?;
        let text = self.close_buffer();
        self.close_scope(before);
        Ok(Value::marked(text, autoescape))
    }

    fn bind(&mut self, source: &'a Macro, mut args: Args) -> Result<()> {
        let name = source.name.as_deref().unwrap_or("caller");
        let count = source.parameters.len();
        let rest = args.list.split_off(args.list.len().min(count));
        let mut given = args.list.into_iter();
        let defaults = count - source.defaults.len();
        for (at, parameter) in source.parameters.iter().enumerate() {
            let value = match given.next().or_else(|| take(&mut args.named, parameter)) {
                Some(value) => value,
                None if at >= defaults => self.eval(&source.defaults[at - defaults])?,
                None => Value::undefined(format!("parameter '{parameter}' was not provided")),
            };
            self.assign(parameter, value);
        }
        if source.reads.caller && !source.parameters.iter().any(|name| name == "caller") {
            let caller = take(&mut args.named, "caller");
            self.assign("caller", caller.unwrap_or_else(|| Value::undefined("no caller is defined")));
        }
        if source.reads.kwargs {
            let named = self.named_dict(args.named)?;
            self.assign("kwargs", named);
        } else if !args.named.is_empty() {
            return Err(Fault::new(format!("macro '{name}' takes no such keyword argument")));
        }
        if source.reads.varargs {
            let rest = Value::tuple(rest, &self.meter)?;
            self.assign("varargs", rest);
        } else if !rest.is_empty() {
            return Err(Fault::new(format!("macro '{name}' takes not more than {count} arguments")));
        }
        Ok(())
    }
}

fn take(named: &mut Vec<(String, Value)>, name: &str) -> Option<Value> {
    let at = named.iter().position(|(found, _)| found == name)?;
    Some(named.remove(at).1)
}
