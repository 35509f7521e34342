//! Identities, records, keyed randomness and shutdown shared by every crate.
//!
//! It holds no behaviour of a role and links no libtorch: what is here is the same in memory, on the wire and on disk.

mod error;
pub mod failpoint;
mod ids;
mod model_set;
mod prompt;
mod records;
mod release;
pub mod rng;
pub mod scratch;
mod shutdown;

pub use error::{Error, Result};
pub use ids::{RecordId, RunId};
pub use model_set::{ModelRef, ModelSet, Player};
pub use prompt::{Chat, MAX_ROLE_BYTES, Message, MessageError, Prompt, Reply, kind_of};
pub use records::{
    Answer, Completion, DropReason, Example, ExampleSource, Finish, Judgement, JudgementStatus, JudgementValue,
    Manifest, Outcome, PromptTask, Provenance, Purpose, Rationale, Rollout, SCHEMA, Target, decode, encode,
};
pub use release::{Progress, Release};
pub use shutdown::Shutdown;
