//! Reads expressions.

use super::{
    ast::{Arguments, Call, Comparison, Expression, ExpressionKind, Link, LinkKind},
    error::{Fault, Result},
    number::Operator,
    parser::Parser,
    primaries::integer,
    token::Kind,
};

/// Makes an expression of a line.
pub(super) fn at(line: u32, kind: ExpressionKind) -> Expression {
    Expression { kind, line }
}

impl Parser {
    /// Reads an expression, or several with commas between them as a tuple.
    pub(super) fn tuple(&mut self, condition: bool) -> Result<Expression> {
        self.tuple_until(condition, &[])
    }

    /// As [`Self::tuple`], up to one of the names.
    pub(super) fn tuple_until(&mut self, condition: bool, ends: &[&str]) -> Result<Expression> {
        let line = self.line();
        let (mut items, several) = self.items(condition, ends)?;
        match items.pop() {
            Some(only) if !several => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(at(line, ExpressionKind::Tuple(items)))
            }
            None => self.unexpected("an expression"),
        }
    }

    pub(super) fn items(&mut self, condition: bool, ends: &[&str]) -> Result<(Vec<Expression>, bool)> {
        let (mut items, mut several) = (Vec::new(), false);
        loop {
            let ended = matches!(self.kind(), Kind::PrintEnd | Kind::BlockEnd) || self.is_operator(")");
            if ended || ends.iter().any(|end| self.is_name(end)) {
                return Ok((items, several));
            }
            items.push(if condition { self.expression()? } else { self.nested(Self::or)? });
            if !self.skip_operator(",") {
                return Ok((items, several));
            }
            several = true;
        }
    }

    /// Reads one expression.
    pub(super) fn expression(&mut self) -> Result<Expression> {
        self.nested(Self::condition)
    }

    fn condition(&mut self) -> Result<Expression> {
        let line = self.line();
        let mut value = self.or()?;
        let mut count = 0;
        while self.skip_name("if") {
            count += 1;
            if count > super::limits::MAX_NESTING {
                return Err(Fault::bound("nested brackets and blocks", count.into()).at(line));
            }
            let test = self.or()?;
            let otherwise = if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            value = at(line, ExpressionKind::Condition(Box::new([test, value]), otherwise));
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Expression> {
        let line = self.line();
        let mut parts = vec![self.and()?];
        while self.skip_name("or") {
            parts.push(self.and()?);
        }
        Ok(single(parts, line, ExpressionKind::Or))
    }

    fn and(&mut self) -> Result<Expression> {
        let line = self.line();
        let mut parts = vec![self.not()?];
        while self.skip_name("and") {
            parts.push(self.not()?);
        }
        Ok(single(parts, line, ExpressionKind::And))
    }

    fn not(&mut self) -> Result<Expression> {
        let line = self.line();
        if self.skip_name("not") {
            return Ok(at(line, ExpressionKind::Not(Box::new(self.nested(Self::not)?))));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expression> {
        let line = self.line();
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(comparison) = self.comparison() {
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { at(line, ExpressionKind::Compare(Box::new(first), rest)) })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let comparison = match self.kind() {
            Kind::Operator("==") => Comparison::Eq,
            Kind::Operator("!=") => Comparison::Ne,
            Kind::Operator("<") => Comparison::Lt,
            Kind::Operator("<=") => Comparison::Le,
            Kind::Operator(">") => Comparison::Gt,
            Kind::Operator(">=") => Comparison::Ge,
            Kind::Name(name) if name == "in" => Comparison::In,
            Kind::Name(name) if name == "not" && matches!(self.ahead(), Kind::Name(name) if name == "in") => {
                self.skip();
                Comparison::NotIn
            }
            _ => return None,
        };
        self.skip();
        Some(comparison)
    }

    fn sum(&mut self) -> Result<Expression> {
        self.operators(Self::concat, &[("+", Operator::Add), ("-", Operator::Sub)])
    }

    fn concat(&mut self) -> Result<Expression> {
        let line = self.line();
        let mut parts = vec![self.product()?];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(single(parts, line, ExpressionKind::Concat))
    }

    fn product(&mut self) -> Result<Expression> {
        let operators = [("*", Operator::Mul), ("/", Operator::Div), ("//", Operator::FloorDiv), ("%", Operator::Mod)];
        self.operators(Self::power, &operators)
    }

    fn power(&mut self) -> Result<Expression> {
        self.operators(Self::signed, &[("**", Operator::Pow)])
    }

    fn operators(
        &mut self,
        operand: fn(&mut Self) -> Result<Expression>,
        operators: &[(&'static str, Operator)],
    ) -> Result<Expression> {
        let line = self.line();
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(text, _)| self.is_operator(text)) {
            self.skip();
            rest.push((*operator, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { at(line, ExpressionKind::Arithmetic(Box::new(first), rest)) })
    }

    fn signed(&mut self) -> Result<Expression> {
        self.unary(true)
    }

    fn unary(&mut self, filters: bool) -> Result<Expression> {
        let line = self.line();
        let value = if self.is_operator("-") || self.is_operator("+") {
            let negative = self.is_operator("-");
            self.skip();
            let inner = self.nested(|it| it.unary(false))?;
            at(line, ExpressionKind::Sign(negative, Box::new(inner)))
        } else {
            self.primary()?
        };
        let mut links = self.postfix()?;
        if filters {
            self.filters_and_tests(&mut links)?;
        }
        Ok(if links.is_empty() { value } else { at(line, ExpressionKind::Chain(Box::new(value), links)) })
    }

    fn postfix(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.kind() {
                Kind::Operator(".") => self.attribute()?,
                Kind::Operator("[") => self.subscript()?,
                Kind::Operator("(") => LinkKind::Call(self.arguments()?),
                _ => return Ok(links),
            };
            links.push(Link { kind, line });
        }
    }

    fn filters_and_tests(&mut self, links: &mut Vec<Link>) -> Result<()> {
        loop {
            let line = self.line();
            let kind = if self.skip_operator("|") {
                LinkKind::Filter(self.named_call()?)
            } else if self.skip_name("is") {
                self.test()?
            } else if self.is_operator("(") {
                LinkKind::Call(self.arguments()?)
            } else {
                return Ok(());
            };
            links.push(Link { kind, line });
        }
    }

    fn attribute(&mut self) -> Result<LinkKind> {
        self.skip();
        let line = self.line();
        match self.next() {
            Kind::Name(name) => Ok(LinkKind::Attribute(name)),
            Kind::Integer(digits) => Ok(LinkKind::Item(at(line, ExpressionKind::Constant(integer(digits))))),
            _ => Err(Fault::new("expected a name or number behind '.'").at(line)),
        }
    }

    fn subscript(&mut self) -> Result<LinkKind> {
        let line = self.line();
        self.skip();
        let mut parts = Vec::new();
        while !self.is_operator("]") {
            if !parts.is_empty() {
                self.expect_operator(",")?;
            }
            parts.push(self.subscribed()?);
        }
        self.skip();
        if parts.len() == 1 {
            return parts.pop().map_or_else(|| self.unexpected("an index"), Ok);
        }
        let mut items = Vec::new();
        for part in parts {
            match part {
                LinkKind::Item(item) => items.push(item),
                _ => return Err(Fault::new("a slice cannot stand in a tuple").at(line)),
            }
        }
        Ok(LinkKind::Item(at(line, ExpressionKind::Tuple(items))))
    }

    fn subscribed(&mut self) -> Result<LinkKind> {
        let start = if self.is_operator(":") { None } else { Some(self.expression()?) };
        if !self.skip_operator(":") {
            return start.map_or_else(|| self.unexpected("an index"), |index| Ok(LinkKind::Item(index)));
        }
        let stop = self.bound()?;
        let step = if self.skip_operator(":") { self.bound()? } else { None };
        Ok(LinkKind::Slice(Box::new([start, stop, step])))
    }

    fn bound(&mut self) -> Result<Option<Expression>> {
        let none = self.is_operator(":") || self.is_operator("]") || self.is_operator(",");
        if none { Ok(None) } else { self.expression().map(Some) }
    }

    /// Reads a filter's name with its arguments.
    pub(super) fn named_call(&mut self) -> Result<Call> {
        let line = self.line();
        let name = self.dotted()?;
        let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok(Call { name, arguments, line })
    }

    fn dotted(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        Ok(name)
    }

    fn test(&mut self) -> Result<LinkKind> {
        let negated = self.skip_name("not");
        let line = self.line();
        let name = self.dotted()?;
        let keyword = ["else", "or", "and"].iter().any(|keyword| self.is_name(keyword));
        let operand = match self.kind() {
            Kind::Name(_) | Kind::Text(_) | Kind::Integer(_) | Kind::Float(_) => !keyword,
            Kind::Operator(operator) => ["[", "{"].contains(operator),
            _ => false,
        };
        let mut arguments = Arguments::default();
        if self.is_operator("(") {
            arguments = self.arguments()?;
        } else if operand {
            if self.is_name("is") {
                return self.fault("tests with 'is' cannot follow each other");
            }
            arguments.positional.push(self.nested(Self::operand)?);
        }
        Ok(LinkKind::Test(Call { name, arguments, line }, negated))
    }

    fn operand(&mut self) -> Result<Expression> {
        let line = self.line();
        let value = self.primary()?;
        let links = self.postfix()?;
        Ok(if links.is_empty() { value } else { at(line, ExpressionKind::Chain(Box::new(value), links)) })
    }
}

fn single(mut parts: Vec<Expression>, line: u32, join: fn(Vec<Expression>) -> ExpressionKind) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            at(line, join(parts))
        }
    }
}
