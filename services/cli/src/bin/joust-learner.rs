//! `joust-learner`: the worker of a cluster that trains a run.

use std::process::ExitCode;

use joust_cli::cluster::{Role, main_of};

/// The allocator of the whole process, libtorch's tensors included: glibc returns large blocks to the kernel at once, and
/// a training step then spends a tenth of its time on fresh pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Ranks are this program again.
    if std::env::args().nth(1).as_deref() == Some("rank") {
        return joust_cli::main();
    }
    main_of(Role::Learner)
}
