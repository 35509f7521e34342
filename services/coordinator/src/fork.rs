//! Runs that go on from a checkpoint of another run.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use joust_core::scratch::Scratch;
use joust_proto::{Error, Failure, Reason, coordinator::v1 as wire};
use serde_json::json;

use crate::{
    cluster::{NewRun, Run},
    service::{Core, broken, resolved},
    submit,
};

/// File in the folder of a run that says which checkpoint of which run it goes on from.
pub const FORK: &str = "fork.json";
/// What a whole checkpoint ends with.
const WHOLE: &str = "manifest.blake3";

/// Makes the folder of a new run with the checkpoint that it goes on from; a repeat of the call makes nothing.
pub(crate) fn forked(core: &Core, source: &Run, request: &wire::ForkRunRequest) -> Result<NewRun, Failure> {
    let new = submit::of_fork(core, source, request)?;
    if core.read(|cluster| cluster.run(&new.id).is_ok()) {
        return Ok(new); // made by the same call before, or refused when it is entered
    }
    let (checkpoint, steps) = checkpoint(source, &request.checkpoint)?;
    if new.release.steps <= steps {
        let text =
            format!("the checkpoint covers {steps} steps, the run would have {}: set learner.steps", new.release.steps);
        return Err(submit::refused("overrides", &text));
    }
    let folder = core.runs.join(new.id.as_str());
    if made_by(&folder, &new.key) {
        return Ok(new); // the coordinator was killed before it entered the run
    }
    if folder.exists() {
        let text = format!("there is a folder {} already; choose another name", folder.display());
        return Err(Failure::new(Reason::RunExists, text));
    }
    // Of this call alone: the same call may come again while this one copies.
    let filled = Scratch::beside(&folder).and_then(|scratch| {
        fill(scratch.path(), &checkpoint, (source, &new.key))?;
        scratch.publish(&folder)
    });
    if let Err(error) = filled {
        if error.kind() == std::io::ErrorKind::NotFound {
            let text = format!("checkpoint {} was removed meanwhile for newer ones; ask again", checkpoint.display());
            return Err(Failure::new(Reason::NotReady, text));
        }
        let text = format!("checkpoint {} cannot be copied to {}: {error}", checkpoint.display(), folder.display());
        return Err(broken(text));
    }
    Ok(new)
}

/// Returns whether a folder was filled by the call of this key.
fn made_by(folder: &Path, key: &str) -> bool {
    // A file that cannot be read was not written by this call: the folder is then refused as one that is there.
    let told = fs::read(folder.join(FORK)).ok();
    let told: Option<serde_json::Value> = told.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    told.is_some_and(|told| told["key"] == key && !folder.join("run.json").exists())
}

/// Finds a checkpoint of a run by name, the newest without one; returns its folder and the steps that it covers.
fn checkpoint(source: &Run, wanted: &str) -> Result<(PathBuf, u64), Failure> {
    let root = resolved(&source.toml).map_err(broken)?.run.output.dir.join("checkpoints");
    let mut found: Vec<(u64, PathBuf)> = root
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let steps = entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
            entry.path().join(WHOLE).is_file().then(|| (steps, entry.path()))
        })
        .collect();
    found.sort();
    let names = || found.iter().map(|(steps, _)| format!("checkpoint-{steps}")).collect::<Vec<_>>().join(", ");
    let known = match wanted {
        "" => found.last(),
        name => found.iter().find(|(steps, _)| format!("checkpoint-{steps}") == name),
    };
    let missing = || match found.is_empty() {
        true => Failure::new(Reason::NotReady, format!("run {} has no checkpoint yet", source.id)),
        false => Error::value("checkpoint", wanted, format!("one of {}", names())).into(),
    };
    known.map(|(steps, path)| (path.clone(), *steps)).ok_or_else(missing)
}

fn fill(staging: &Path, checkpoint: &Path, (source, key): (&Run, &str)) -> std::io::Result<()> {
    let name = checkpoint.file_name().unwrap_or_default();
    let target = staging.join("checkpoints").join(name);
    fs::create_dir_all(&target)?;
    for entry in checkpoint.read_dir()? {
        let entry = entry?;
        let to = target.join(entry.file_name());
        // Nobody writes into a checkpoint; where the file system knows no links it is copied.
        fs::hard_link(entry.path(), &to).or_else(|_| fs::copy(entry.path(), &to).map(drop))?;
    }
    // Its learner may have begun to remove it meanwhile.
    fs::metadata(target.join(WHOLE))?;
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(target.join("manifest.json"))?)?;
    for shard in manifest["shards"].as_array().into_iter().flatten() {
        fs::metadata(target.join(shard["file"].as_str().unwrap_or_default()))?;
    }
    let from = json!({ "run": source.id.to_string(), "checkpoint": name.to_string_lossy(), "key": key });
    fs::write(staging.join(FORK), from.to_string())?;
    for folder in [target.as_path(), &staging.join("checkpoints"), staging] {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
