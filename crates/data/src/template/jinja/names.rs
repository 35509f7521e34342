//! Which names a template reads and assigns, as Jinja2's compiler finds them.

use std::collections::{HashMap, HashSet};

use super::ast::{
    Arguments, Body, Call, Expression, ExpressionKind, For, Link, LinkKind, Macro, Reads, Statement, StatementKind,
    Target,
};

/// Returns whether a name is a literal.
pub(super) fn is_constant(name: &str) -> bool {
    ["true", "false", "none", "True", "False", "None"].contains(&name)
}

/// Returns whether a target assigns to a name.
pub(super) fn assigns(target: &Target, name: &str) -> bool {
    match target {
        Target::Name(found) => found == name,
        Target::Attribute(..) => false,
        Target::Tuple(targets) => targets.iter().any(|target| assigns(target, name)),
    }
}

/// Returns whether a statement of a body, or of a body inside of it, assigns to a name.
pub(super) fn stores(body: &Body, name: &str) -> bool {
    body.statements.iter().any(|statement| match &statement.kind {
        StatementKind::Set(target, _) => assigns(target, name),
        StatementKind::SetBlock(target, _, body) => assigns(target, name) || stores(body, name),
        StatementKind::If(branches, otherwise) => {
            branches.iter().any(|branch| stores(&branch.body, name)) || stores(otherwise, name)
        }
        StatementKind::For(parts) => stores(&parts.body, name) || stores(&parts.otherwise, name),
        StatementKind::Macro(source) | StatementKind::CallBlock(source, _) => stores(&source.body, name),
        StatementKind::FilterBlock(_, body)
        | StatementKind::With(_, body)
        | StatementKind::Block(body)
        | StatementKind::Generation(body)
        | StatementKind::Autoescape(_, body) => stores(body, name),
        _ => false,
    })
}

/// Returns which special names a macro reads.
pub(super) fn reads(body: &Body, defaults: &[Expression]) -> Reads {
    let mut found = HashSet::new();
    let mut load = |name: &str| {
        found.insert(name.to_owned());
    };
    let mut visitor = Visitor { load: &mut load };
    defaults.iter().for_each(|value| visitor.expression(value));
    visitor.body(body);
    Reads { varargs: found.contains("varargs"), kwargs: found.contains("kwargs"), caller: found.contains("caller") }
}

/// Calls a function for every name that is read, inside of nested bodies too.
struct Visitor<'f> {
    load: &'f mut dyn FnMut(&str),
}

impl Visitor<'_> {
    fn body(&mut self, body: &Body) {
        body.statements.iter().for_each(|statement| self.statement(&statement.kind));
    }

    fn statement(&mut self, kind: &StatementKind) {
        match kind {
            StatementKind::Print(value) => self.expression(value),
            StatementKind::Set(target, value) => {
                self.target(target);
                self.expression(value);
            }
            StatementKind::If(branches, otherwise) => {
                for branch in branches {
                    self.expression(&branch.test);
                    self.body(&branch.body);
                }
                self.body(otherwise);
            }
            StatementKind::For(parts) => self.for_(parts),
            StatementKind::SetBlock(_, filters, body) | StatementKind::FilterBlock(filters, body) => {
                filters.iter().for_each(|filter| self.call(filter));
                self.body(body);
            }
            StatementKind::Macro(macro_) => self.macro_(macro_),
            StatementKind::CallBlock(macro_, call) => {
                self.expression(call);
                self.macro_(macro_);
            }
            StatementKind::With(values, body) => {
                values.iter().for_each(|(_, value)| self.expression(value));
                self.body(body);
            }
            StatementKind::Generation(body) => self.body(body),
            StatementKind::Autoescape(value, body) => {
                self.expression(value);
                self.body(body);
            }
            StatementKind::Data(_)
            | StatementKind::Block(_)
            | StatementKind::Break
            | StatementKind::Continue
            | StatementKind::Refused(_) => {}
        }
    }

    fn for_(&mut self, parts: &For) {
        self.expression(&parts.items);
        self.body(&parts.body);
        self.body(&parts.otherwise);
        parts.test.iter().for_each(|test| self.expression(test));
    }

    fn macro_(&mut self, macro_: &Macro) {
        macro_.defaults.iter().for_each(|value| self.expression(value));
        self.body(&macro_.body);
    }

    fn target(&mut self, target: &Target) {
        if let Target::Attribute(name, _) = target {
            (self.load)(name);
        }
    }

    fn expression(&mut self, expression: &Expression) {
        match &expression.kind {
            ExpressionKind::Constant(_) => {}
            ExpressionKind::Name(name) => (self.load)(name),
            ExpressionKind::List(items)
            | ExpressionKind::Tuple(items)
            | ExpressionKind::Concat(items)
            | ExpressionKind::And(items)
            | ExpressionKind::Or(items) => items.iter().for_each(|item| self.expression(item)),
            ExpressionKind::Dict(entries) => entries.iter().for_each(|(key, value)| {
                self.expression(key);
                self.expression(value);
            }),
            ExpressionKind::Arithmetic(first, rest) => {
                self.expression(first);
                rest.iter().for_each(|(_, value)| self.expression(value));
            }
            ExpressionKind::Compare(first, rest) => {
                self.expression(first);
                rest.iter().for_each(|(_, value)| self.expression(value));
            }
            ExpressionKind::Not(value) | ExpressionKind::Sign(_, value) => self.expression(value),
            ExpressionKind::Condition(parts, otherwise) => {
                parts.iter().for_each(|part| self.expression(part));
                otherwise.iter().for_each(|part| self.expression(part));
            }
            ExpressionKind::Chain(first, links) => {
                self.expression(first);
                links.iter().for_each(|link| self.link(link));
            }
        }
    }

    fn link(&mut self, link: &Link) {
        match &link.kind {
            LinkKind::Attribute(_) => {}
            LinkKind::Item(index) => self.expression(index),
            LinkKind::Slice(bounds) => bounds.iter().flatten().for_each(|bound| self.expression(bound)),
            LinkKind::Call(arguments) => self.arguments(arguments),
            LinkKind::Filter(call) | LinkKind::Test(call, _) => self.call(call),
        }
    }

    fn call(&mut self, call: &Call) {
        self.arguments(&call.arguments);
    }

    fn arguments(&mut self, arguments: &Arguments) {
        arguments.positional.iter().for_each(|value| self.expression(value));
        arguments.named.iter().for_each(|(_, value)| self.expression(value));
        arguments.unpacked.iter().for_each(|value| self.expression(value));
        arguments.unpacked_named.iter().for_each(|value| self.expression(value));
    }
}

/// What a name of a scope stands for at its start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// What is outside, or given.
    Outside,
    /// Nothing until it is assigned.
    Unset,
}

/// Names of one scope.
#[derive(Clone, Default)]
struct Scope {
    names: HashMap<String, Start>,
    stores: HashSet<String>,
}

/// Notes in every scope which names it assigns before it reads them while no scope around it has them.
pub(super) fn mark_unset(body: &mut Body) {
    mark(body, Scope::default(), &[]);
}

fn mark(body: &mut Body, mut scope: Scope, around: &[Scope]) {
    scope.statements(&body.statements, around);
    let unset = scope.names.iter().filter(|(_, start)| **start == Start::Unset);
    body.unset = unset.map(|(name, _)| name.clone()).collect();
    body.unset.sort();
    let around: Vec<Scope> = around.iter().cloned().chain([scope]).collect();
    mark_inner(&mut body.statements, &around);
}

fn mark_inner(statements: &mut [Statement], around: &[Scope]) {
    for statement in statements {
        match &mut statement.kind {
            StatementKind::If(branches, otherwise) => {
                branches.iter_mut().for_each(|branch| mark_inner(&mut branch.body.statements, around));
                mark_inner(&mut otherwise.statements, around);
            }
            StatementKind::For(parts) => {
                let mut scope = Scope::default();
                scope.parameters(&parts.target);
                scope.parameter("loop");
                mark(&mut parts.body, scope, around);
                mark(&mut parts.otherwise, Scope::default(), around);
            }
            StatementKind::With(values, body) => {
                let mut scope = Scope::default();
                values.iter().for_each(|(target, _)| scope.parameters(target));
                mark(body, scope, around);
            }
            StatementKind::Macro(macro_) | StatementKind::CallBlock(macro_, _) => {
                if let Some(macro_) = std::sync::Arc::get_mut(macro_) {
                    let mut scope = Scope::default();
                    macro_.parameters.iter().for_each(|name| scope.parameter(name));
                    ["varargs", "kwargs", "caller"].iter().for_each(|name| scope.parameter(name));
                    mark(&mut macro_.body, scope, around);
                }
            }
            StatementKind::Block(body) => mark(body, Scope::default(), &[]),
            StatementKind::SetBlock(_, _, body)
            | StatementKind::FilterBlock(_, body)
            | StatementKind::Generation(body)
            | StatementKind::Autoescape(_, body) => mark(body, Scope::default(), around),
            _ => {}
        }
    }
}

impl Scope {
    fn parameter(&mut self, name: &str) {
        self.stores.insert(name.to_owned());
        self.names.insert(name.to_owned(), Start::Outside);
    }

    fn parameters(&mut self, target: &Target) {
        match target {
            Target::Name(name) => self.parameter(name),
            Target::Attribute(..) => {}
            Target::Tuple(targets) => targets.iter().for_each(|target| self.parameters(target)),
        }
    }

    fn load(&mut self, name: &str) {
        self.names.entry(name.to_owned()).or_insert(Start::Outside);
    }

    fn store(&mut self, name: &str, around: &[Scope]) {
        self.stores.insert(name.to_owned());
        let outside = around.iter().any(|scope| scope.names.contains_key(name));
        let start = if outside { Start::Outside } else { Start::Unset };
        self.names.entry(name.to_owned()).or_insert(start);
    }

    fn target(&mut self, target: &Target, around: &[Scope]) {
        match target {
            Target::Name(name) => self.store(name, around),
            Target::Attribute(name, _) => self.load(name),
            Target::Tuple(targets) => targets.iter().for_each(|target| self.target(target, around)),
        }
    }

    fn expression(&mut self, expression: &Expression) {
        Visitor { load: &mut |name: &str| self.load(name) }.expression(expression);
    }

    fn statements(&mut self, statements: &[Statement], around: &[Scope]) {
        statements.iter().for_each(|statement| self.statement(&statement.kind, around));
    }

    fn statement(&mut self, kind: &StatementKind, around: &[Scope]) {
        match kind {
            StatementKind::Print(value) | StatementKind::CallBlock(_, value) => self.expression(value),
            StatementKind::Set(target, value) => {
                self.expression(value);
                self.target(target, around);
            }
            StatementKind::SetBlock(target, ..) => self.target(target, around),
            StatementKind::For(parts) => self.expression(&parts.items),
            StatementKind::Macro(macro_) => macro_.name.iter().for_each(|name| self.store(name, around)),
            StatementKind::With(values, _) => values.iter().for_each(|(_, value)| self.expression(value)),
            StatementKind::FilterBlock(filters, _) => {
                let mut visitor = Visitor { load: &mut |name: &str| self.load(name) };
                filters.iter().for_each(|filter| visitor.call(filter));
            }
            StatementKind::If(branches, otherwise) => {
                let bodies = branches.iter().map(|branch| (Some(&branch.test), &branch.body));
                self.branches(bodies.chain([(None, otherwise)]), around);
            }
            _ => {}
        }
    }

    /// Visits branches: a name that only some of them assign stands for what is outside before.
    fn branches<'b>(&mut self, branches: impl Iterator<Item = (Option<&'b Expression>, &'b Body)>, around: &[Scope]) {
        let before = self.clone();
        for (at, (test, body)) in branches.enumerate() {
            let mut branch = before.clone();
            if let Some(test) = test {
                if at == 0 {
                    self.expression(test)
                } else {
                    branch.expression(test)
                }
                branch.expression(test);
            }
            branch.statements(&body.statements, around);
            for name in branch.stores.difference(&before.stores) {
                branch.names.insert(name.clone(), Start::Outside);
            }
            self.names.extend(branch.names);
            self.stores.extend(branch.stores);
        }
    }
}
