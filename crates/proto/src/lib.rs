//! The wire: generated messages and services, conversions to and from the records, and the one table of error codes.
//!
//! It opens no connection and logs nothing; `joust-rpc` serves and calls what is described here. What arrives is parsed into the
//! records of `joust-core` (`TryFrom`), which are valid by construction; what is sent is made from them (`From`).

mod convert;
mod error;
mod generated;
pub mod limits;
pub mod parse;
pub mod status;

pub use error::{Error, Result};
pub use generated::{DESCRIPTORS, common, coordinator, judge, learner, rollout};
pub use status::{Failure, Reason};
