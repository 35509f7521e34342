//! What every gRPC service and client of joust shares: TLS, tokens, deadlines, limits, drain, retries and balancing.
//!
//! It knows no role: a service hands its routes to [`serve`], a client builds its stubs on a [`Caller`]. Prompts, completions, tokens and
//! metadata are never logged.

pub mod access;
mod balance;
mod border;
mod caller;
pub mod certs;
mod deadline;
pub mod deploy;
mod error;
mod guarded;
mod rate;
mod repeat;
mod retry;
mod server;
pub mod sized;
mod tls;
mod tokens;
mod trace;
mod watched;

pub use balance::{Address, Lookup};
pub use border::{Auth, Limits, Peer};
pub use caller::{Caller, ClientConfig};
pub use error::{Error, Result};
pub use joust_telemetry::TraceContext;
pub use retry::Retry;
pub use server::{ServerConfig, Services, serve};
pub use tls::{ClientTls, ServerTls};
pub use tokens::{Scope, Token, TokenEntry, new_token};
