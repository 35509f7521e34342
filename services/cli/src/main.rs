//! The joust command.

use std::process::ExitCode;

/// The allocator of the whole process, libtorch's tensors included: glibc returns large blocks to the kernel at once, and
/// a training step then spends a tenth of its time on fresh pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    joust_cli::main()
}
