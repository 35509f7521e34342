//! Reads what is assigned to, and the parameters of macros.

use super::{
    ast::{Expression, Target},
    error::Result,
    names,
    parser::Parser,
    token::Kind,
};

impl Parser {
    /// Reads parameters with their defaults.
    pub(super) fn signature(&mut self) -> Result<(Vec<String>, Vec<Expression>)> {
        self.expect_operator("(")?;
        let (mut parameters, mut defaults) = (Vec::new(), Vec::new());
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            parameters.push(self.assignable_name()?);
            if self.skip_operator("=") {
                defaults.push(self.expression()?);
            } else if parameters.last().is_some_and(|name| name == "caller") {
                return self.fault("the parameter 'caller' must have a default");
            } else if !defaults.is_empty() {
                return self.fault("a parameter without a default follows one with a default");
            }
        }
        self.skip();
        Ok((parameters, defaults))
    }

    /// Reads a name that can be assigned to.
    pub(super) fn assignable_name(&mut self) -> Result<String> {
        let name = self.expect_name()?;
        if names::is_constant(&name) { self.fault("a constant cannot be assigned to") } else { Ok(name) }
    }

    /// Reads what is assigned to, up to one of the names.
    pub(super) fn target(&mut self, ends: &[&str], attributes: bool) -> Result<Target> {
        let (mut targets, mut several) = (Vec::new(), false);
        loop {
            let ended = matches!(self.kind(), Kind::BlockEnd) || self.is_operator(")") || self.is_operator("=");
            if ended || ends.iter().any(|end| self.is_name(end)) {
                break;
            }
            targets.push(self.one_target(attributes)?);
            if !self.skip_operator(",") {
                break;
            }
            several = true;
        }
        match targets.len() {
            0 => self.unexpected("a name to assign to"),
            1 if !several => targets.pop().map_or_else(|| self.unexpected("a name"), Ok),
            _ => Ok(Target::Tuple(targets)),
        }
    }

    fn one_target(&mut self, attributes: bool) -> Result<Target> {
        if self.skip_operator("(") {
            let target = self.nested(|it| it.target(&[], false))?;
            self.expect_operator(")")?;
            return Ok(target);
        }
        let name = self.assignable_name()?;
        if attributes && self.skip_operator(".") {
            return Ok(Target::Attribute(name, self.expect_name()?));
        }
        Ok(Target::Name(name))
    }
}
