//! Tokens of a template.

/// A token with its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    /// What it is.
    pub kind: Kind,
    /// Line, from 1.
    pub line: u32,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Text outside of tags.
    Data(String),
    /// `{{`
    PrintBegin,
    /// `}}`
    PrintEnd,
    /// `{%`
    BlockBegin,
    /// `%}`
    BlockEnd,
    /// A name or keyword.
    Name(String),
    /// A text literal.
    Text(String),
    /// An integer literal, in base 10.
    Integer(String),
    /// A float literal.
    Float(f64),
    /// An operator.
    Operator(&'static str),
    /// The end.
    End,
}

impl Kind {
    /// Describes the token without its text.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Data(_) => "text".into(),
            Self::PrintBegin => "'{{'".into(),
            Self::PrintEnd => "'}}'".into(),
            Self::BlockBegin => "'{%'".into(),
            Self::BlockEnd => "'%}'".into(),
            Self::Name(name) => format!("'{}'", name.chars().take(40).collect::<String>()),
            Self::Text(_) => "a text literal".into(),
            Self::Integer(_) | Self::Float(_) => "a number".into(),
            Self::Operator(operator) => format!("'{operator}'"),
            Self::End => "the end of the template".into(),
        }
    }
}
