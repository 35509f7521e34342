//! Tokenizers, chat templates and data files (JSONL, Parquet) read into valid records.
//!
//! What leaves this crate is checked: every later part may trust it (R7). It samples, trains and judges nothing.

mod bpe;
mod error;
mod preference;
mod prompt_set;
mod rating;
mod rows;
mod template;
mod text;
mod tokenizer;

pub use bpe::train_bpe;
pub use error::{Error, Result};
pub use preference::{Preference, read_preferences};
pub use prompt_set::{PromptSet, SetOptions, split_by};
pub use rating::{Rating, read_ratings};
pub use rows::{OnError, Skipped, read_prompts, read_rows};
pub use text::{Supervised, read_supervised, read_texts};
pub use tokenizer::Tokenizer;
