//! Tabular games: a policy that is a table of logits, a judge that is a preference matrix, and the real pairing, losses and
//! optimizer between them.
//!
//! Their equilibria are known exactly, so a method can be seen to reach the point that its paper promises, or another one.

mod error;
mod game;
mod play;
mod plot;
mod show;
mod solve;
mod table;

pub use error::{Error, Result};
pub use game::Game;
pub use play::{Method, Path, Settings, play, self_play};
pub use plot::draw;
pub use show::{Row, Show, show};
pub use solve::{dpo_point, nash, nash_md_point};
