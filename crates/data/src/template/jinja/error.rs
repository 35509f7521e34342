//! What can go wrong in a template; never a value of the conversation.

/// A fault with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What is wrong: names of the template and kinds of values.
    pub reason: String,
    /// The text that the template gave to `raise_exception`; it may quote the conversation.
    pub raised: Option<String>,
    /// Line of the template, from 1.
    pub line: Option<u32>,
}

/// Result of evaluation.
pub(crate) type Result<T> = std::result::Result<T, Box<Fault>>;

impl Fault {
    /// Makes a fault.
    pub(crate) fn new(reason: impl Into<String>) -> Box<Self> {
        Box::new(Self { reason: reason.into(), raised: None, line: None })
    }

    /// Makes the fault of a passed bound.
    pub(crate) fn bound(what: &str, limit: u64) -> Box<Self> {
        Self::new(format!("it passes the bound of {limit} {what}; use a template that does less"))
    }

    /// Makes the fault of `raise_exception`.
    pub(crate) fn raised(text: String) -> Box<Self> {
        Box::new(Self { reason: "it raised an exception".into(), raised: Some(text), line: None })
    }

    /// Adds the line, unless a deeper place has set it.
    pub(crate) fn at(mut self: Box<Self>, line: u32) -> Box<Self> {
        self.line.get_or_insert(line);
        self
    }
}
