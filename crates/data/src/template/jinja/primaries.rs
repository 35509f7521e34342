//! Reads names, literals, brackets and arguments.

use super::{
    ast::{Arguments, Constant, Expression, ExpressionKind},
    error::Result,
    expressions::at,
    parser::Parser,
    token::Kind,
};

impl Parser {
    /// Reads the arguments of a call.
    pub(super) fn arguments(&mut self) -> Result<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_operator(")") {
            if !first {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            first = false;
            self.argument(&mut arguments)?;
        }
        self.skip();
        Ok(arguments)
    }

    fn argument(&mut self, arguments: &mut Arguments) -> Result<()> {
        let (unpacked, unpacked_named) = (arguments.unpacked.is_some(), arguments.unpacked_named.is_some());
        if self.is_operator("*") && !unpacked && !unpacked_named {
            self.skip();
            arguments.unpacked = Some(Box::new(self.expression()?));
        } else if self.is_operator("**") && !unpacked_named {
            self.skip();
            arguments.unpacked_named = Some(Box::new(self.expression()?));
        } else if matches!(self.kind(), Kind::Name(_)) && matches!(self.ahead(), Kind::Operator("=")) && !unpacked_named
        {
            let name = self.expect_name()?;
            self.skip();
            if arguments.named.iter().any(|(other, _)| *other == name) {
                return self.fault("a keyword argument is repeated");
            }
            arguments.named.push((name, self.expression()?));
        } else if !unpacked && !unpacked_named && arguments.named.is_empty() {
            arguments.positional.push(self.expression()?);
        } else {
            return self.fault("an argument by place follows one by name");
        }
        Ok(())
    }

    /// Reads a name, a literal or what stands in brackets.
    pub(super) fn primary(&mut self) -> Result<Expression> {
        let line = self.line();
        let kind = match self.kind() {
            Kind::Name(_) => name(self.expect_name()?),
            Kind::Text(_) => self.texts(),
            Kind::Integer(digits) => {
                let constant = integer(digits.clone());
                self.skip();
                ExpressionKind::Constant(constant)
            }
            Kind::Float(number) => {
                let constant = Constant::Float(*number);
                self.skip();
                ExpressionKind::Constant(constant)
            }
            Kind::Operator("(") => return self.parenthesis(),
            Kind::Operator("[") => ExpressionKind::List(self.list()?),
            Kind::Operator("{") => ExpressionKind::Dict(self.dict()?),
            _ => return self.unexpected("an expression"),
        };
        Ok(at(line, kind))
    }

    fn texts(&mut self) -> ExpressionKind {
        let mut joined = String::new();
        while let Kind::Text(text) = self.kind() {
            joined.push_str(text);
            self.skip();
        }
        ExpressionKind::Constant(Constant::Text(joined.into()))
    }

    fn parenthesis(&mut self) -> Result<Expression> {
        let line = self.line();
        self.skip();
        let (mut items, several) = self.items(true, &[])?;
        self.expect_operator(")")?;
        match items.pop() {
            Some(only) if !several => Ok(only),
            last => {
                items.extend(last);
                Ok(at(line, ExpressionKind::Tuple(items)))
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Expression>> {
        self.skip();
        let mut items = Vec::new();
        while !self.skip_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator("]") {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn dict(&mut self) -> Result<Vec<(Expression, Expression)>> {
        self.skip();
        let mut entries = Vec::new();
        while !self.skip_operator("}") {
            if !entries.is_empty() {
                self.expect_operator(",")?;
                if self.skip_operator("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_operator(":")?;
            entries.push((key, self.expression()?));
        }
        Ok(entries)
    }
}

fn name(name: String) -> ExpressionKind {
    match name.as_str() {
        "true" | "True" => ExpressionKind::Constant(Constant::Bool(true)),
        "false" | "False" => ExpressionKind::Constant(Constant::Bool(false)),
        "none" | "None" => ExpressionKind::Constant(Constant::None),
        _ => ExpressionKind::Name(name),
    }
}

/// Makes the literal of an integer.
pub(super) fn integer(digits: String) -> Constant {
    digits.parse().map_or(Constant::Big(digits), Constant::Int)
}
