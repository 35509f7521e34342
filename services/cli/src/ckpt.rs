//! `joust ckpt`: the checkpoints of a run, listed, checked and exported.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, ensure};
use joust_config::{RunFile, load};
use joust_train::{Checkpoint, list};

use crate::{
    args::{CkptCommand, CkptFolder},
    device,
    export::Export,
    model,
};

/// Runs the verb.
///
/// # Errors
/// A folder without checkpoints, or a damaged one.
pub fn run(command: &CkptCommand) -> anyhow::Result<ExitCode> {
    match command {
        CkptCommand::Ls(CkptFolder { run }) => {
            for checkpoint in found(run)? {
                println!("step {:>8}  {:>10.1} MiB  {}", checkpoint.step, size(&checkpoint), checkpoint.path.display());
            }
        }
        CkptCommand::Verify(CkptFolder { run }) => {
            let mut damaged = 0;
            for checkpoint in found(run)? {
                match checkpoint.verify() {
                    Ok(bytes) => println!("step {:>8}  whole, {bytes} bytes", checkpoint.step),
                    Err(error) => {
                        damaged += 1;
                        println!("step {:>8}  {error}", checkpoint.step);
                    }
                }
            }
            ensure!(damaged == 0, "{damaged} checkpoints are damaged; `joust run --resume` uses the newest whole one");
        }
        CkptCommand::Export { folder, step, out, merge } => export(&folder.run, *step, (out, *merge))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn found(run: &Path) -> anyhow::Result<Vec<Checkpoint>> {
    let found = list(&run.join("checkpoints"));
    ensure!(!found.is_empty(), "{} holds no checkpoints; give the output folder of a run", run.display());
    Ok(found)
}

/// Returns what the files of a checkpoint take, in MiB.
fn size(checkpoint: &Checkpoint) -> f64 {
    let files = checkpoint.path.read_dir().into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>() as f64 / f64::from(1 << 20)
}

fn export(run: &Path, step: Option<u64>, (out, merge): (&Path, bool)) -> anyhow::Result<()> {
    let all = found(run)?;
    let steps = || all.iter().map(|checkpoint| checkpoint.step.to_string()).collect::<Vec<_>>().join(", ");
    let wanted = |checkpoint: &&Checkpoint| step.is_none_or(|step| checkpoint.step == step);
    let checkpoint =
        all.iter().find(wanted).with_context(|| format!("no checkpoint is of that step; there are {}", steps()))?;
    ensure!(!out.exists(), "{} exists already; give a new folder", out.display());
    let file = load::<RunFile>(&run.join("run.toml"), &[])?.run;
    let model = model::policy(&file.policy, file.seed)?;
    let export = Export::new(&file, &model);
    let export = if merge { export.merging() } else { export };
    export.publish(out, &checkpoint.policy()?.to_device(device::torch()))?;
    println!("exported step {} to {}", checkpoint.step, out.display());
    Ok(())
}
