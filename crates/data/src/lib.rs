//! Tokenizers, chat templates and data files (JSONL, Parquet) read into valid records.
//!
//! What leaves this crate is checked: every later part may trust it (R7). It samples, trains and judges nothing.

mod bpe;
mod chat;
mod conversation;
mod encode;
mod error;
mod formats;
mod preference;
mod prompt_set;
mod prompts;
mod ranking;
mod rating;
mod rows;
mod supervised;
mod template;
mod tokenizer;

pub use bpe::train_bpe;
pub use conversation::{LossOn, Sequence};
pub use encode::{Answered, AnsweredPair};
pub use error::{Error, Result};
pub use formats::Format;
pub use preference::{Margins, Preference, PreferenceOptions, Unpaired, read_preferences, read_unpaired};
pub use prompt_set::{PromptSet, SetOptions, split_by};
pub use prompts::read_prompts;
pub use ranking::{Ranking, read_rankings};
pub use rating::{Rating, read_ratings};
pub use rows::{OnError, Skipped};
pub use supervised::{Supervised, read_supervised, read_texts};
pub use tokenizer::Tokenizer;
