//! The sampling engine: an actor on its own thread with a KV cache and keyed draws.
//!
//! A caller submits prompts and receives completions as they finish. The engine knows tokens only: text, judges and queues are
//! elsewhere.

mod actor;
mod batch;
mod error;
mod models;
mod sampler;
#[cfg(feature = "sandbox")]
pub mod sandbox;
mod score;
mod source;

pub use actor::{CompletionStream, Engine};
pub use error::{Error, Result};
pub use models::{ModelStore, Published, Snapshot};
pub use sampler::SamplingParams;
pub use score::ScoreRequest;
pub use source::Source;

use std::ops::Range;

use joust_core::{Finish, ModelRef, rng::Stream};

/// One prompt and which of its answers to sample.
#[derive(Debug, Clone)]
pub struct SamplePrompt {
    /// Position in the stream: the key of its draws.
    pub position: u64,
    /// The prompt's ids, at least one.
    pub prompt_ids: Vec<u32>,
    /// Sample indices to draw.
    pub samples: Range<u32>,
}

/// Prompts to answer from one source under one set of parameters.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// The prompts; the batch is formed in this order, whatever else is waiting.
    pub prompts: Vec<SamplePrompt>,
    /// Temperature, filters and limits.
    pub params: SamplingParams,
    /// Seed of the run.
    pub seed: u64,
    /// What the draws are for.
    pub stream: Stream,
    /// Whose distribution the answers are drawn from.
    pub source: Source,
}

/// One finished completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Index into the request's prompts.
    pub prompt: usize,
    /// Which of the prompt's answers.
    pub sample_index: u32,
    /// Sampled ids, the EOS included iff it was sampled.
    pub token_ids: Vec<u32>,
    /// Log-prob of each token in nats under the source's distribution at temperature 1 without filters.
    pub logprobs: Vec<f32>,
    /// How it ended.
    pub finish: Finish,
    /// The weights that sampled it; of a mixture the policy's.
    pub model: ModelRef,
}
