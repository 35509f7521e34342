//! The joust command.

use std::process::ExitCode;

fn main() -> ExitCode {
    joust_cli::main()
}
