//! `joust config check|explain|schema`.

use std::process::ExitCode;

use joust_config::{RunFile, explain, load, schema};

use crate::args::{ConfigArgs, ConfigCommand};

/// Runs the verb.
///
/// # Errors
/// What is wrong with the run file.
pub fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        ConfigCommand::Check(args) => {
            let resolved = load::<RunFile>(&args.file, &args.overrides)?;
            println!("{} is valid: run {}, settings {}", args.file.display(), resolved.run.name, &resolved.hash[..16]);
        }
        ConfigCommand::Explain(args) => print!("{}", explain(&load::<RunFile>(&args.file, &args.overrides)?)),
        ConfigCommand::Schema => println!("{}", serde_json::to_string_pretty(&schema::<RunFile>())?),
    }
    Ok(ExitCode::SUCCESS)
}
