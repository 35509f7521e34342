//! `joust-learner`: the worker of a cluster that trains a run.

use std::process::ExitCode;

use joust_cli::cluster::{Role, main_of};

fn main() -> ExitCode {
    // Ranks are this program again.
    if std::env::args().nth(1).as_deref() == Some("rank") {
        return joust_cli::main();
    }
    main_of(Role::Learner)
}
