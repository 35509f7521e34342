//! Llama-type decoders and reward heads; Hugging Face folders in and out.
//!
//! Weights keep the keys of the Hugging Face checkpoint from the file to the optimizer. Sampling and training use the same
//! forward code; only sampling packs its matrices for few rows ([`Llama::for_sampling`]) and holds a KV cache. A low-rank adapter is added to a
//! decoder without touching its memory ([`Llama::with_adapter`]).

mod cache;
mod config;
mod device;
mod error;
mod folder;
mod keys;
mod layer;
mod llama;
mod lora;
mod matrix;
mod packing;
mod peft;
mod rope;
mod sequences;
mod weights;

pub use cache::KvCache;
pub use config::{Dtype, Head, ModelConfig, RopeScaling};
pub use device::{Device, Permit, set_threads};
pub use error::{Error, Result};
pub use folder::{load, publish_edited, publish_folder, save};
pub use llama::{Llama, sequence_logprobs};
pub use lora::{Adapter, DropoutKey, LoraConfig, RankAlpha};
pub use packing::Packing;
pub use peft::{AdapterFolder, open, publish_adapter, read_adapter};
pub use sequences::{SequenceBatch, sequence_ratings, sequence_scores, sequence_states};
pub use weights::Weights;
