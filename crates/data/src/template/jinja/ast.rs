//! What a template's source means.

use std::sync::Arc;

use super::number::Operator;

/// Statements that run one after another in one scope.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// The statements.
    pub statements: Vec<Statement>,
    /// Names that this scope assigns before it reads them: undefined until then, whatever the context has.
    pub unset: Vec<String>,
}

/// A statement with its line.
#[derive(Debug)]
pub(crate) struct Statement {
    /// What it does.
    pub kind: StatementKind,
    /// Line, from 1.
    pub line: u32,
}

/// What a statement does.
#[derive(Debug)]
pub(crate) enum StatementKind {
    /// Writes text of the template.
    Data(String),
    /// Writes a value.
    Print(Expression),
    /// Runs the first branch whose test holds.
    If(Vec<Branch>, Body),
    /// Runs a body for each item.
    For(Box<For>),
    /// Assigns a value.
    Set(Target, Expression),
    /// Assigns what a body writes, through filters.
    SetBlock(Target, Vec<Call>, Body),
    /// Names a macro.
    Macro(Arc<Macro>),
    /// Calls a macro with a body as its `caller`.
    CallBlock(Arc<Macro>, Expression),
    /// Filters what a body writes.
    FilterBlock(Vec<Call>, Body),
    /// Runs a body with variables of its own.
    With(Vec<(Target, Expression)>, Body),
    /// Runs a body of a name.
    Block(Body),
    /// Runs a body and notes where it wrote.
    Generation(Body),
    /// Runs a body with escaping on or off.
    Autoescape(Expression, Body),
    /// Ends a loop.
    Break,
    /// Goes on with the next item.
    Continue,
    /// Needs other templates.
    Refused(&'static str),
}

/// A branch of an `if`.
#[derive(Debug)]
pub(crate) struct Branch {
    /// The test.
    pub test: Expression,
    /// What runs.
    pub body: Body,
}

/// A `for`.
#[derive(Debug)]
pub(crate) struct For {
    /// What an item is assigned to.
    pub target: Target,
    /// The items.
    pub items: Expression,
    /// Which items count.
    pub test: Option<Expression>,
    /// Whether `loop(…)` runs it again.
    pub recursive: bool,
    /// What runs for an item.
    pub body: Body,
    /// What runs if there was none.
    pub otherwise: Body,
}

/// A macro.
#[derive(Debug)]
pub(crate) struct Macro {
    /// Its name; none for a `call` block.
    pub name: Option<String>,
    /// Parameters.
    pub parameters: Vec<String>,
    /// Defaults of the last parameters.
    pub defaults: Vec<Expression>,
    /// What it writes.
    pub body: Body,
    /// Which of the special names its body reads.
    pub reads: Reads,
}

/// Which special names a macro reads; it takes further arguments only then.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reads {
    /// `varargs`
    pub varargs: bool,
    /// `kwargs`
    pub kwargs: bool,
    /// `caller`
    pub caller: bool,
}

/// What can be assigned to.
#[derive(Debug)]
pub(crate) enum Target {
    /// A name.
    Name(String),
    /// An attribute of a namespace.
    Attribute(String, String),
    /// Several.
    Tuple(Vec<Target>),
}

/// An expression with its line.
#[derive(Debug)]
pub(crate) struct Expression {
    /// What it computes.
    pub kind: ExpressionKind,
    /// Line, from 1.
    pub line: u32,
}

/// What an expression computes.
#[derive(Debug)]
pub(crate) enum ExpressionKind {
    /// A literal.
    Constant(Constant),
    /// A variable.
    Name(String),
    /// A list.
    List(Vec<Expression>),
    /// A tuple.
    Tuple(Vec<Expression>),
    /// A dict.
    Dict(Vec<(Expression, Expression)>),
    /// Operators of one precedence, from the left.
    Arithmetic(Box<Expression>, Vec<(Operator, Expression)>),
    /// Texts joined.
    Concat(Vec<Expression>),
    /// Comparisons in a chain.
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// `and`
    And(Vec<Expression>),
    /// `or`
    Or(Vec<Expression>),
    /// `not`
    Not(Box<Expression>),
    /// A sign; negative where true.
    Sign(bool, Box<Expression>),
    /// `a if b else c`
    Condition(Box<[Expression; 2]>, Option<Box<Expression>>),
    /// What follows a value: attributes, items, calls, filters and tests, from the left.
    Chain(Box<Expression>, Vec<Link>),
}

/// One step behind a value.
#[derive(Debug)]
pub(crate) struct Link {
    /// What it does.
    pub kind: LinkKind,
    /// Line, from 1.
    pub line: u32,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum LinkKind {
    /// `.name`
    Attribute(String),
    /// `[index]`
    Item(Expression),
    /// `[start:stop:step]`
    Slice(Box<[Option<Expression>; 3]>),
    /// `(…)`
    Call(Arguments),
    /// `| name(…)`
    Filter(Call),
    /// `is name(…)`, negated where true
    Test(Call, bool),
}

/// A literal.
#[derive(Debug, Clone)]
pub(crate) enum Constant {
    /// `none`
    None,
    /// `true`, `false`
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A larger integer, in base 10.
    Big(String),
    /// A float.
    Float(f64),
    /// A text.
    Text(Arc<str>),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `in`
    In,
    /// `not in`
    NotIn,
}

/// A filter or test with its arguments.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
    /// Line, from 1.
    pub line: u32,
}

/// Arguments of a call.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// By place.
    pub positional: Vec<Expression>,
    /// By name.
    pub named: Vec<(String, Expression)>,
    /// `*list`
    pub unpacked: Option<Box<Expression>>,
    /// `**dict`
    pub unpacked_named: Option<Box<Expression>>,
}
