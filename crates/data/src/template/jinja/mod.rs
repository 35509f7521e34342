//! A small Jinja: the language of chat templates as Jinja2 and Python run it, in a sandbox.
//!
//! Values are Python's: what prints, compares or raises there does so here. It loads no other templates.

mod ast;
mod attribute;
mod call;
mod cases;
mod checks;
mod classes;
mod clock;
mod compare;
mod containers;
mod digits;
mod error;
mod escape;
mod eval;
mod exec;
mod expressions;
mod filters;
mod filters_keyed;
mod filters_number;
mod filters_sequence;
mod format;
mod json;
mod lexer;
mod limits;
mod literal;
mod names;
mod number;
mod numbers;
mod operators;
mod parser;
mod percent;
mod primaries;
mod repr;
mod search;
mod spec;
mod state;
mod strings;
mod targets;
mod token;
mod translate;
mod unicode;
mod value;
mod wrap;

use std::{collections::HashMap, ops::Range};

use ast::{Body, Statement, StatementKind};
use serde_json::Value as Json;
use state::State;

pub(crate) use clock::Clock;
pub(crate) use error::Fault;
pub(crate) use limits::MAX_SOURCE_BYTES;
pub(crate) use unicode::{rstrip, strip};

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    body: Body,
}

/// What a template wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// The text.
    pub text: String,
    /// Character ranges of what `{% generation %}` blocks wrote.
    pub marks: Vec<Range<usize>>,
}

/// Variables of a rendering.
pub(crate) type Variables<'v> = Vec<(&'v str, &'v Json)>;

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// A [`Fault`] with the line.
    pub(crate) fn parse(source: &str) -> error::Result<Self> {
        on_large_stack(|| parser::parse(source).map(|body| Self { body }))
    }

    /// Returns whether the template has a `{% generation %}` block.
    pub(crate) fn has_generation(&self) -> bool {
        marks(&self.body)
    }

    /// Renders the template.
    ///
    /// # Errors
    /// A [`Fault`] with the line if it raises or passes a bound.
    pub(crate) fn render(&self, variables: &Variables, clock: Clock) -> error::Result<Output> {
        on_large_stack(|| {
            let meter = limits::Meter::default();
            let mut context = HashMap::new();
            for (name, value) in variables {
                context.insert((*name).to_owned(), value::Value::from_json(value, &meter)?);
            }
            let mut state = State::new(context, meter, clock);
            state.run(&self.body)?;
            let (text, marks) = state.finish();
            Ok(Output { text, marks })
        })
    }
}

fn marks(body: &Body) -> bool {
    let inside = |statement: &Statement| match &statement.kind {
        StatementKind::Generation(_) => true,
        StatementKind::If(branches, otherwise) => branches.iter().any(|branch| marks(&branch.body)) || marks(otherwise),
        StatementKind::For(parts) => marks(&parts.body) || marks(&parts.otherwise),
        StatementKind::Macro(source) | StatementKind::CallBlock(source, _) => marks(&source.body),
        StatementKind::SetBlock(_, _, body)
        | StatementKind::FilterBlock(_, body)
        | StatementKind::With(_, body)
        | StatementKind::Block(body)
        | StatementKind::Autoescape(_, body) => marks(body),
        _ => false,
    };
    body.statements.iter().any(inside)
}

/// Runs on a thread whose stack has room for the deepest evaluation that the bounds let through.
fn on_large_stack<T: Send>(work: impl FnOnce() -> error::Result<T> + Send) -> error::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(limits::STACK_BYTES);
        let thread = thread.spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Fault::new(format!("cannot start a thread to render on: {error}")))?;
        thread.join().map_err(|_| Fault::new("rendering ended in a panic; report this template"))?
    })
}
