//! `joust-judge`: the worker of a cluster that judges the answers.

use std::process::ExitCode;

use joust_cli::cluster::{Role, main_of};

fn main() -> ExitCode {
    main_of(Role::Judge)
}
