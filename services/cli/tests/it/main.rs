//! Tests of the `joust` command, as a process of its own.
//!
//! One binary for all, since each links libtorch.

mod adapters;
mod bad_input;
mod choices;
mod cycle;
mod device;
mod few_shot;
mod given;
mod kill_resume;
mod outputs;
mod pal;
mod presets;
mod rank_kills;
mod reward_heads;
mod shipped;
mod stories;
mod verbs;
