//! Reads statements.

use std::sync::Arc;

use super::{
    ast::{Body, Branch, Call, ExpressionKind, For, LinkKind, Macro, Statement, StatementKind},
    error::{Fault, Result},
    lexer::tokenize,
    limits::{MAX_NESTING, MAX_SOURCE_BYTES},
    names,
    token::{Kind, Token},
};

/// Parses a template.
///
/// # Errors
/// A [`Fault`] with the line.
pub(crate) fn parse(source: &str) -> Result<Body> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Fault::bound("bytes of source", MAX_SOURCE_BYTES as u64));
    }
    let tokens = tokenize(source)?;
    let mut parser = Parser { tokens, at: 0, depth: 0, loops: 0 };
    let statements = parser.statements(&[])?;
    let mut body = Body { statements, unset: Vec::new() };
    names::mark_unset(&mut body);
    Ok(body)
}

/// Reads tokens one by one.
pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
    /// Loops around the place, within one macro.
    loops: u32,
}

impl Parser {
    pub(super) fn kind(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    pub(super) fn ahead(&self) -> &Kind {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at].line
    }

    pub(super) fn next(&mut self) -> Kind {
        let kind = self.kind().clone();
        self.skip();
        kind
    }

    pub(super) fn skip(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    pub(super) fn fault<T>(&self, reason: &str) -> Result<T> {
        Err(Fault::new(reason).at(self.line()))
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        self.fault(&format!("expected {expected}, got {}", self.kind().describe()))
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.kind(), Kind::Name(found) if found == name)
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.kind(), Kind::Operator(found) if *found == operator)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        if is {
            self.skip();
        }
        is
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> bool {
        let is = self.is_operator(operator);
        if is {
            self.skip();
        }
        is
    }

    pub(super) fn expect_operator(&mut self, operator: &str) -> Result<()> {
        if self.skip_operator(operator) { Ok(()) } else { self.unexpected(&format!("'{operator}'")) }
    }

    pub(super) fn expect_name(&mut self) -> Result<String> {
        match self.kind() {
            Kind::Name(_) => match self.next() {
                Kind::Name(name) => Ok(name),
                _ => self.unexpected("a name"),
            },
            _ => self.unexpected("a name"),
        }
    }

    fn expect(&mut self, kind: &Kind) -> Result<()> {
        if self.kind() == kind {
            self.skip();
            return Ok(());
        }
        self.unexpected(&kind.describe())
    }

    /// Counts one more level while `read` runs.
    pub(super) fn nested<T>(&mut self, read: fn(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(Fault::bound("nested brackets and blocks", MAX_NESTING.into()).at(self.line()));
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Reads statements up to one of the named tags, which stays.
    fn statements(&mut self, ends: &[&str]) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.kind().clone() {
                Kind::End if ends.is_empty() => return Ok(statements),
                Kind::End => return self.unexpected(&format!("'{}'", ends.join("' or '"))),
                Kind::Data(text) => {
                    self.skip();
                    StatementKind::Data(text)
                }
                Kind::PrintBegin => {
                    self.skip();
                    let value = self.tuple(true)?;
                    self.expect(&Kind::PrintEnd)?;
                    StatementKind::Print(value)
                }
                Kind::BlockBegin => {
                    self.skip();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(statements);
                    }
                    let kind = self.nested(Self::statement)?;
                    if let StatementKind::Print(_) = kind {
                        self.prints(kind, line, &mut statements)?;
                        continue;
                    }
                    self.expect(&Kind::BlockEnd)?;
                    kind
                }
                _ => return self.unexpected("text or a tag"),
            };
            statements.push(Statement { kind, line });
        }
    }

    /// Reads the further values of `{% print a, b %}`.
    fn prints(&mut self, first: StatementKind, line: u32, statements: &mut Vec<Statement>) -> Result<()> {
        statements.push(Statement { kind: first, line });
        while self.skip_operator(",") {
            let kind = StatementKind::Print(self.expression()?);
            statements.push(Statement { kind, line });
        }
        self.expect(&Kind::BlockEnd)
    }

    /// Reads the statements of a tag up to its end, which is passed where `last`.
    fn body(&mut self, ends: &[&str], last: bool) -> Result<Body> {
        self.skip_operator(":");
        self.expect(&Kind::BlockEnd)?;
        let statements = self.statements(ends)?;
        if last {
            self.skip();
        }
        Ok(Body { statements, unset: Vec::new() })
    }

    fn statement(&mut self) -> Result<StatementKind> {
        let line = self.line();
        let name = self.expect_name()?;
        match name.as_str() {
            "if" => self.if_(),
            "for" => self.for_(),
            "set" => self.set(),
            "macro" => self.macro_(),
            "call" => self.call_block(),
            "filter" => self.filter_block(),
            "with" => self.with(),
            "print" => Ok(StatementKind::Print(self.expression()?)),
            "block" => self.block(),
            "generation" => Ok(StatementKind::Generation(self.without_loops(|it| it.body(&["endgeneration"], true))?)),
            "autoescape" => {
                let on = self.expression()?;
                Ok(StatementKind::Autoescape(on, self.body(&["endautoescape"], true)?))
            }
            "break" | "continue" if self.loops == 0 => {
                Err(Fault::new(format!("'{name}' stands outside of a loop")).at(line))
            }
            "break" => Ok(StatementKind::Break),
            "continue" => Ok(StatementKind::Continue),
            "include" => self.refused("include"),
            "import" => self.refused("import"),
            "from" => self.refused("from"),
            "extends" => self.refused("extends"),
            _ => {
                let name: String = name.chars().take(40).collect();
                Err(Fault::new(format!("unknown statement '{name}'")).at(line))
            }
        }
    }

    /// Passes a tag that needs other templates; it is refused when it runs.
    fn refused(&mut self, name: &'static str) -> Result<StatementKind> {
        while !matches!(self.kind(), Kind::BlockEnd | Kind::End) {
            self.skip();
        }
        Ok(StatementKind::Refused(name))
    }

    fn without_loops<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let loops = std::mem::take(&mut self.loops);
        let result = read(self);
        self.loops = loops;
        result
    }

    fn if_(&mut self) -> Result<StatementKind> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false)?;
            let body = self.body(&["elif", "else", "endif"], false)?;
            branches.push(Branch { test, body });
            if self.skip_name("elif") {
                continue;
            }
            let otherwise = if self.skip_name("else") { self.body(&["endif"], true)? } else { self.passed()? };
            return Ok(StatementKind::If(branches, otherwise));
        }
    }

    fn passed(&mut self) -> Result<Body> {
        self.skip();
        Ok(Body::default())
    }

    fn for_(&mut self) -> Result<StatementKind> {
        let line = self.line();
        let target = self.target(&["in"], false)?;
        if names::assigns(&target, "loop") {
            return Err(Fault::new("a loop cannot assign to 'loop'").at(line));
        }
        if !self.skip_name("in") {
            return self.unexpected("'in'");
        }
        let items = self.tuple_until(false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let body = self.body(&["endfor", "else"], false)?;
        self.loops -= 1;
        if names::stores(&body, "loop") {
            return Err(Fault::new("a loop cannot assign to 'loop'").at(line));
        }
        let otherwise = if self.skip_name("else") { self.body(&["endfor"], true)? } else { self.passed()? };
        Ok(StatementKind::For(Box::new(For { target, items, test, recursive, body, otherwise })))
    }

    fn set(&mut self) -> Result<StatementKind> {
        let target = self.target(&[], true)?;
        if self.skip_operator("=") {
            return Ok(StatementKind::Set(target, self.tuple(true)?));
        }
        let filters = self.filters()?;
        Ok(StatementKind::SetBlock(target, filters, self.body(&["endset"], true)?))
    }

    fn filters(&mut self) -> Result<Vec<Call>> {
        let mut filters = Vec::new();
        while self.skip_operator("|") {
            filters.push(self.named_call()?);
        }
        Ok(filters)
    }

    fn filter_block(&mut self) -> Result<StatementKind> {
        let mut filters = vec![self.named_call()?];
        filters.extend(self.filters()?);
        Ok(StatementKind::FilterBlock(filters, self.body(&["endfilter"], true)?))
    }

    fn macro_(&mut self) -> Result<StatementKind> {
        let name = self.assignable_name()?;
        let (parameters, defaults) = self.signature()?;
        let body = self.without_loops(|it| it.body(&["endmacro"], true))?;
        let reads = names::reads(&body, &defaults);
        Ok(StatementKind::Macro(Arc::new(Macro { name: Some(name), parameters, defaults, body, reads })))
    }

    fn call_block(&mut self) -> Result<StatementKind> {
        let (parameters, defaults) = if self.is_operator("(") { self.signature()? } else { Default::default() };
        let call = self.expression()?;
        let is_call = matches!(&call.kind, ExpressionKind::Chain(_, links)
            if matches!(links.last().map(|link| &link.kind), Some(LinkKind::Call(_))));
        if !is_call {
            return self.fault("expected a call behind 'call'");
        }
        let body = self.without_loops(|it| it.body(&["endcall"], true))?;
        let reads = names::reads(&body, &defaults);
        Ok(StatementKind::CallBlock(Arc::new(Macro { name: None, parameters, defaults, body, reads }), call))
    }

    fn with(&mut self) -> Result<StatementKind> {
        let mut values = Vec::new();
        while *self.kind() != Kind::BlockEnd {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_operator("=")?;
            values.push((target, self.expression()?));
        }
        Ok(StatementKind::With(values, self.body(&["endwith"], true)?))
    }

    fn block(&mut self) -> Result<StatementKind> {
        let name = self.expect_name()?;
        self.skip_name("scoped");
        self.skip_name("required");
        let body = self.without_loops(|it| it.body(&["endblock"], true))?;
        self.skip_name(&name);
        Ok(StatementKind::Block(body))
    }
}
