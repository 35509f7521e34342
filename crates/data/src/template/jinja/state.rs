//! What a rendering has: variables, buffers, and objects that change.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::{
    ast::{For, Macro},
    clock::Clock,
    compare::Key,
    error::{Fault, Result},
    limits::{MAX_DEPTH, MAX_TEXT_BYTES, Meter},
    value::Value,
};

/// Global functions.
const FUNCTIONS: [&str; 9] =
    ["range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now", "lipsum", "self"];

/// A rendering under way.
pub(crate) struct State<'a> {
    /// What is used.
    pub meter: Meter,
    /// Attributes of namespaces. Objects that change live here, by number, so that cycles are freed.
    pub namespaces: Vec<IndexMap<Key, Value>>,
    /// Macros.
    pub macros: Vec<MacroValue<'a>>,
    /// Loops.
    pub loops: Vec<Loop<'a>>,
    /// Cyclers, with their place.
    pub cyclers: Vec<(Vec<Value>, usize)>,
    /// Joiners, with whether they were used.
    pub joiners: Vec<(Value, bool)>,
    /// Whether printed values are escaped.
    pub autoescape: bool,
    /// The time that `strftime_now` formats.
    pub clock: Clock,
    context: HashMap<String, Value>,
    scopes: Vec<Scope<'a>>,
    scope: usize,
    buffers: Vec<String>,
    counted: Counted,
    spans: Vec<std::ops::Range<usize>>,
    depth: u32,
}

/// A macro with the scope that it was made in.
pub(crate) struct MacroValue<'a> {
    /// Its source.
    pub source: &'a Macro,
    /// The scope.
    pub scope: usize,
}

/// A loop under way.
pub(crate) struct Loop<'a> {
    /// Its items; none when it has ended.
    pub items: Vec<Value>,
    /// How many items there are.
    pub length: usize,
    /// The item's place, from 0.
    pub index: usize,
    /// How many loops it was called from.
    pub depth0: usize,
    /// What `loop(…)` runs, in which scope.
    pub recursive: Option<(&'a For, usize)>,
    /// What `loop.changed` saw last.
    pub changed: Option<Vec<Value>>,
}

#[derive(Default)]
struct Scope<'a> {
    names: Vec<(&'a str, Value)>,
    parent: Option<usize>,
    /// Whether a macro refers to it.
    captured: bool,
}

/// How far the characters of the output are counted.
#[derive(Default)]
struct Counted {
    bytes: usize,
    characters: usize,
}

impl<'a> State<'a> {
    /// Starts a rendering with the variables of a context.
    pub(crate) fn new(context: HashMap<String, Value>, meter: Meter, clock: Clock) -> Self {
        Self {
            meter,
            namespaces: Vec::new(),
            macros: Vec::new(),
            loops: Vec::new(),
            cyclers: Vec::new(),
            joiners: Vec::new(),
            autoescape: false,
            clock,
            context,
            scopes: vec![Scope::default()],
            scope: 0,
            buffers: vec![String::new()],
            counted: Counted::default(),
            spans: Vec::new(),
            depth: 0,
        }
    }

    /// Ends a rendering: the text, and character ranges of what was marked.
    pub(crate) fn finish(mut self) -> (String, Vec<std::ops::Range<usize>>) {
        (std::mem::take(&mut self.buffers[0]), self.spans)
    }

    /// Counts one more nested evaluation; [`Self::leave`] ends it.
    pub(crate) fn enter(&mut self) -> Result<()> {
        self.meter.step(1)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::bound("nested evaluations", MAX_DEPTH.into()));
        }
        Ok(())
    }

    /// Ends a nested evaluation.
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Looks a variable up.
    pub(crate) fn lookup(&self, name: &str) -> Value {
        let mut at = Some(self.scope);
        while let Some(number) = at {
            let scope = &self.scopes[number];
            if let Some((_, value)) = scope.names.iter().find(|(found, _)| *found == name) {
                return value.clone();
            }
            at = scope.parent;
        }
        if let Some(value) = self.context.get(name) {
            return value.clone();
        }
        match FUNCTIONS.iter().find(|function| **function == name) {
            Some(function) => Value::Function(function),
            None => Value::undefined(format!("'{name}' is undefined")),
        }
    }

    /// Assigns a variable of the scope.
    pub(crate) fn assign(&mut self, name: &'a str, value: Value) {
        let names = &mut self.scopes[self.scope].names;
        match names.iter_mut().find(|(found, _)| *found == name) {
            Some((_, place)) => *place = value,
            None => names.push((name, value)),
        }
    }

    /// Returns the scope under way.
    pub(crate) fn scope(&self) -> usize {
        self.scope
    }

    /// Opens a scope inside of another; returns the one that [`Self::close_scope`] goes back to.
    pub(crate) fn open_scope(&mut self, parent: usize) -> Result<usize> {
        self.meter.places(1)?;
        let before = self.scope;
        self.scopes.push(Scope { parent: Some(parent), ..Scope::default() });
        self.scope = self.scopes.len() - 1;
        Ok(before)
    }

    /// Goes back to a scope.
    pub(crate) fn close_scope(&mut self, before: usize) {
        let last = self.scope + 1 == self.scopes.len();
        if last && !self.scopes[self.scope].captured {
            self.scopes.pop();
        }
        self.scope = before;
    }

    /// Keeps the scope under way and those around it, for a macro.
    pub(crate) fn capture_scope(&mut self) {
        let mut at = Some(self.scope);
        while let Some(number) = at {
            if std::mem::replace(&mut self.scopes[number].captured, true) {
                return;
            }
            at = self.scopes[number].parent;
        }
    }

    /// Writes text.
    pub(crate) fn write(&mut self, text: &str) -> Result<()> {
        self.meter.text(text.len())?;
        if let Some(buffer) = self.buffers.last_mut() {
            if buffer.len() + text.len() > MAX_TEXT_BYTES {
                return Err(Fault::bound("bytes of output", MAX_TEXT_BYTES as u64));
            }
            buffer.push_str(text);
        }
        Ok(())
    }

    /// Collects what is written from here on.
    pub(crate) fn open_buffer(&mut self) {
        self.buffers.push(String::new());
    }

    /// Ends a collection.
    pub(crate) fn close_buffer(&mut self) -> String {
        if self.buffers.len() > 1 { self.buffers.pop().unwrap_or_default() } else { String::new() }
    }

    /// Returns how many collections there are.
    pub(crate) fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// Drops the collections above a number.
    pub(crate) fn drop_buffers(&mut self, count: usize) {
        self.buffers.truncate(count.max(1));
    }

    /// Notes that a text is the assistant's, and begins where the output ends now.
    pub(crate) fn mark(&mut self, text: &str) {
        let output = &self.buffers[0];
        self.counted.characters += output[self.counted.bytes..].chars().count();
        self.counted.bytes = output.len();
        let start = self.counted.characters;
        self.spans.push(start..start + text.chars().count());
    }
}
