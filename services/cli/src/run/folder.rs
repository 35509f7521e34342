//! The output folder: claimed once, by one run.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use joust_config::{Resolved, dump};
use joust_core::scratch;
use serde::{Deserialize, Serialize};

/// Folder of what the judge workers of a cluster keep of a run, one folder a worker.
pub const JUDGED: &str = "judged";

/// What tells one run from another.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    name: String,
    /// Hash of the resolved run file.
    settings: String,
    /// Hash of the initial weights and the prompts.
    inputs: String,
    /// The Redis that holds its queue; `None` for a file in the folder.
    #[serde(default)]
    queue: Option<String>,
}

/// How a run takes its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It begins.
    Fresh,
    /// It goes on with the settings that it began with.
    Resume,
    /// It begins or goes on, with the settings that a coordinator says.
    Assigned,
}

/// Claims a fresh output folder, or checks that the run in it is the one to resume.
///
/// # Errors
/// A folder that holds another run, or holds one when it is to be fresh; nothing is changed then.
pub fn claim(resolved: &Resolved, (inputs, queue): (&str, Option<&str>), how: Claim) -> anyhow::Result<()> {
    let dir = &resolved.run.output.dir;
    let path = dir.join("run.json");
    let identity = Identity {
        name: resolved.run.name.to_string(),
        settings: resolved.hash.clone(),
        inputs: inputs.to_owned(),
        queue: queue.map(str::to_owned),
    };
    if path.exists() {
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let found: Identity =
            serde_json::from_str(&text).with_context(|| format!("{} is not a run's identity", path.display()))?;
        check(dir, &identity, &found, how)?;
        if identity != found {
            write_atomically(&path, &serde_json::to_string_pretty(&identity)?)?;
        }
        return write_atomically(&dir.join("run.toml"), &dump(resolved)?);
    }
    // What a kill during the claim itself leaves is no run, nor is what the judges of a cluster keep, nor the checkpoint of a fork.
    let foreign = |name: std::ffi::OsString| !scratch::is_scratch(&name.to_string_lossy()) && name != JUDGED;
    let forked = dir.join(joust_coordinator::FORK).is_file();
    let occupied =
        !forked && dir.read_dir().is_ok_and(|entries| entries.flatten().any(|entry| foreign(entry.file_name())));
    ensure!(!occupied, "output folder {} holds something that is not a run; set output.dir", dir.display());
    ensure!(how != Claim::Resume, "output folder {} holds no run to resume; leave out --resume", dir.display());
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    write_atomically(&path, &serde_json::to_string_pretty(&identity)?)?;
    write_atomically(&dir.join("run.toml"), &dump(resolved)?)
}

fn check(dir: &Path, identity: &Identity, found: &Identity, how: Claim) -> anyhow::Result<()> {
    let dir_name = dir.display();
    if found.settings != identity.settings && how != Claim::Assigned {
        bail!(
            "output folder {dir_name} holds run {:?} with other settings (compare {dir_name}/run.toml with `joust config explain`); \
             set output.dir for a new run",
            found.name
        );
    }
    if found.inputs != identity.inputs {
        bail!(
            "output folder {dir_name} holds run {:?} on another model or other prompts; set output.dir for a new run",
            found.name
        );
    }
    if found.queue != identity.queue {
        let is = |queue: &Option<String>| queue.clone().unwrap_or_else(|| "a file in the folder".into());
        bail!(
            "output folder {dir_name} holds run {:?}, whose queue is {}, not {}; mend --redis",
            found.name,
            is(&found.queue),
            is(&identity.queue)
        );
    }
    ensure!(
        how != Claim::Fresh,
        "output folder {dir_name} holds run {:?} already; add --resume to go on with it, or set output.dir",
        found.name
    );
    Ok(())
}

/// Writes a file by a temporary one and a rename.
///
/// # Errors
/// The path and what the system said.
pub fn write_atomically(path: &Path, text: &str) -> anyhow::Result<()> {
    scratch::write_atomically(path, text.as_bytes()).with_context(|| format!("failed to write {}", path.display()))
}
