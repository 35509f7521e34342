//! Errors of sampling.

/// What can go wrong between a request and its completions.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A prompt leaves no room for an answer.
    #[error(
        "prompt at position {position} has {tokens} tokens, the context holds {context}; shorten it or set data.on_error = \"skip\""
    )]
    PromptTooLong {
        /// Position of the prompt.
        position: u64,
        /// Its length in tokens.
        tokens: usize,
        /// The model's context in tokens.
        context: i64,
    },
    /// A prompt has no tokens at all.
    #[error("prompt at position {position} has no tokens; give it text, or a tokenizer that adds a BOS")]
    EmptyPrompt {
        /// Position of the prompt.
        position: u64,
    },
    /// A prompt holds an id that the embedding lacks.
    #[error(
        "prompt at position {position} holds token id {id}, the embedding has {vocab_size} rows; use the tokenizer that belongs to the model"
    )]
    TokenId {
        /// Position of the prompt.
        position: u64,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: i64,
    },
    /// A sequence that cannot be read.
    #[error("sequence {index} cannot be read: {problem}")]
    Sequence {
        /// Its place in the request.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The model gave a distribution that nothing can be drawn from.
    #[error("the model's logits at position {position} are not finite; the weights are broken")]
    NotFinite {
        /// Position of the prompt.
        position: u64,
    },
    /// The engine's thread failed.
    #[error("the sampling engine failed: {0}")]
    Failed(String),
    /// The engine was stopped before the request was done.
    #[error("the sampling engine was stopped")]
    Stopped,
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
