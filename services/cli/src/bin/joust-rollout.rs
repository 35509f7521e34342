//! `joust-rollout`: the worker of a cluster that answers the prompts.

use std::process::ExitCode;

use joust_cli::cluster::{Role, main_of};

/// The allocator of the whole process, libtorch's tensors included: glibc returns large blocks to the kernel at once, and
/// a training step then spends a tenth of its time on fresh pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    main_of(Role::Rollout)
}
