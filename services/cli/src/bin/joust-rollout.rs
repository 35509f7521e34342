//! `joust-rollout`: the worker of a cluster that answers the prompts.

use std::process::ExitCode;

use joust_cli::cluster::{Role, main_of};

fn main() -> ExitCode {
    main_of(Role::Rollout)
}
