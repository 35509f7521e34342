//! Errors of building a judge; what happens while judging is a status of the judgement instead.

/// Why a judge cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A regular expression does not compile.
    #[error("judge {judge}, rule {rule}: pattern {pattern:?} is not a regular expression: {reason}")]
    Pattern {
        /// Name of the judge.
        judge: String,
        /// Place of the rule in the list, from 1.
        rule: usize,
        /// Pattern as written.
        pattern: String,
        /// What the regex compiler said.
        reason: String,
    },
    /// A word list holds what can never match as a whole word.
    #[error(
        "judge {judge}, {place}: {word:?} is not one word, so it would never match; use a pattern rule for anything else"
    )]
    Word {
        /// Name of the judge.
        judge: String,
        /// Where it stands.
        place: String,
        /// Word as written.
        word: String,
    },
    /// A word list weighs one word twice, in different case.
    #[error("judge {judge}, {place}: {word:?} is listed twice in different case; keep one")]
    WordTwice {
        /// Name of the judge.
        judge: String,
        /// Where it stands.
        place: String,
        /// Word in lower case.
        word: String,
    },
    /// No scorer was given for a reward model.
    #[error("judge {judge}: reward model {model} is not loaded; give its scorer under the judge's name")]
    MissingScorer {
        /// Name of the judge.
        judge: String,
        /// Folder of the model.
        model: String,
    },
    /// A judge that learns has no teacher.
    #[error(
        "judge {judge}: gold = {gold:?} names no judge that could label for it; write the name of one that does not learn"
    )]
    MissingGold {
        /// Name of the judge.
        judge: String,
        /// Name of its teacher.
        gold: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
