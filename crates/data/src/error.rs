//! Errors of tokenizers and data files.

use std::path::PathBuf;

/// What can go wrong between a file and a valid record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("failed to {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A row of a data file is not what its use needs.
    #[error("{path}:{line}: {problem}; mend the line, or set data.on_error = \"skip\"")]
    Row {
        /// The data file.
        path: PathBuf,
        /// Line, or row of a Parquet file, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A data file holds nothing that can be used.
    #[error("{path} holds no usable row ({skipped} skipped); expected {expected}")]
    Empty {
        /// The data file.
        path: PathBuf,
        /// Rows that were skipped.
        skipped: usize,
        /// What was looked for.
        expected: &'static str,
    },
    /// A file is not of the format that its name says.
    #[error("{path} is not a readable {format} file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// JSONL, Parquet, JSON.
        format: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The tokenizer holds more ids than the embedding has rows.
    #[error(
        "{path} has token ids up to {largest}, the embedding in config.json has {rows} rows; use the tokenizer that belongs to the model"
    )]
    Embedding {
        /// The tokenizer file.
        path: PathBuf,
        /// Largest id.
        largest: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// An id that ends an answer has no row in the embedding.
    #[error(
        "{folder} names the EOS id {id}, the embedding has {rows} rows; correct eos_token_id in config.json and generation_config.json"
    )]
    EosEmbedding {
        /// The model folder.
        folder: PathBuf,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The tokenizer refused a text.
    #[error("tokenizer {path}: {reason}")]
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// Chat messages were given to a model without a chat template, or its template failed.
    #[error("chat template of {path}: {reason}")]
    Template {
        /// The model folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A held-out share leaves one of the two sides empty.
    #[error(
        "eval_fraction {fraction} of {prompts} distinct prompts leaves no prompt on one side; change data.eval_fraction or give more prompts"
    )]
    Split {
        /// The share.
        fraction: f64,
        /// Distinct prompts.
        prompts: usize,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
