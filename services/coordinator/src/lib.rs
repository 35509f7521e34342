//! Coordinator: runs, members and prompts of a cluster. It samples, judges and trains nothing; it knows only how far the learners are.
//!
//! [`feed()`] puts one run's prompts, in one process as in a cluster. [`serve`] is the service: what it decides is [`cluster`], what it remembers
//! `store`, what it answers `server`.

mod added;
pub mod cluster;
mod deploy;
mod depth;
mod error;
mod events;
mod feed;
mod feedback;
mod fork;
mod given;
pub mod prompts;
mod records;
mod roots;
mod server;
mod service;
mod store;
mod submit;
mod wire;

pub use deploy::open_queue;
pub use depth::watch_depth;
pub use error::{Error, Result};
pub use events::{Told, What};
pub use feed::{Feed, FeedDeps, PromptSource, feed};
pub use fork::FORK;
pub use service::{Config, Deps, serve};
