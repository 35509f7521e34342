//! Checkpoints: masters, moments, averages and the caller's state in one folder that appears whole or not at all.
//!
//! Each rank writes its own rows into a shard; then one writes the manifest, which names all shards with their hashes, and renames the folder. A
//! checkpoint is read by any number of ranks.

mod read;
mod shard;

use std::{
    fs,
    path::{Path, PathBuf},
};

use joust_core::failpoint;
use joust_model::Weights;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, Master, Ranks, Result};
use read::Reader;

pub use shard::Shard;
pub(crate) use shard::Writing;

const MANIFEST: &str = "manifest.json";
const HASH: &str = "manifest.blake3";
/// Version of the folder's layout.
const FORMAT: u32 = 1;

/// A checkpoint folder, `checkpoint-<step>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Optimizer steps done.
    pub step: u64,
    /// The folder.
    pub path: PathBuf,
}

/// What a checkpoint consists of.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest<S> {
    format: u32,
    step: u64,
    shards: Vec<Shard>,
    /// Updates of each model's optimizer.
    updates: Vec<u64>,
    state: S,
}

/// The shards of all ranks, on disk, and what a checkpoint says beside them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    /// One a rank.
    pub shards: Vec<Shard>,
    /// Updates of each model's optimizer.
    pub updates: Vec<u64>,
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(io("write", path))?;
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(io("flush", path))
}

impl Checkpoint {
    /// Makes an empty folder for the shards of a step, which is no checkpoint yet.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn stage(root: &Path, step: u64) -> Result<PathBuf> {
        // Of this process: a learner that was stopped and wakes up writes into a folder of its own.
        let staging = root.join(format!(".checkpoint-{step}.{}.staging", std::process::id()));
        for old in root.read_dir().into_iter().flatten().flatten() {
            let name = old.file_name().to_string_lossy().into_owned();
            let staged = name.strip_prefix(".checkpoint-").filter(|name| name.ends_with(".staging"));
            let begun = staged.and_then(|name| name.split('.').next()?.parse::<u64>().ok());
            if begun.is_some_and(|begun| begun < step) {
                // What a killed process left; one that goes on fails at its fence.
                let _ = fs::remove_dir_all(old.path());
            }
        }
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(io("remove", &staging))?;
        }
        fs::create_dir_all(&staging).map_err(io("create", &staging))?;
        Ok(staging)
    }

    /// Makes a checkpoint of the shards in a staged folder: writes the manifest and renames the folder.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, for example on a full disk; older checkpoints stay as they were.
    pub fn seal(staging: &Path, step: u64, written: Written, state: &impl Serialize) -> Result<Self> {
        let root = staging.parent().unwrap_or(Path::new("."));
        let path = root.join(format!("checkpoint-{step}"));
        let manifest = Manifest { format: FORMAT, step, shards: written.shards, updates: written.updates, state };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::Checkpoint { path: path.clone(), reason: error.to_string() })?;
        write_synced(&staging.join(MANIFEST), &text)?;
        write_synced(&staging.join(HASH), blake3::hash(&text).to_hex().as_bytes())?;
        failpoint::pass("checkpoint_before_rename");
        if path.exists() {
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
        fs::rename(staging, &path).map_err(io("rename", staging))?;
        fs::File::open(root).and_then(|folder| folder.sync_all()).map_err(io("flush", root))?;
        Ok(Self { step, path })
    }

    /// Writes masters, moments, averages and `state` under `root`, at once and from one rank.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn write(root: &Path, step: u64, masters: &[(&str, &Master)], state: &impl Serialize) -> Result<Self> {
        let staging = Self::stage(root, step)?;
        let shards = vec![Writing::begin(&staging, 0, masters)?.wait()?];
        Self::seal(&staging, step, Written { shards, updates: updates(masters) }, state)
    }

    /// Reads masters, moments and averages back into `masters`, of each the rows that this rank keeps, and returns the state.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a file is missing or cut, its hash differs, or its tensors are not those of `masters`.
    pub fn read<S: DeserializeOwned>(&self, masters: &mut [(&str, &mut Master)]) -> Result<S> {
        self.verify_share(&Ranks::default())?;
        self.restore(masters)
    }

    /// As [`Self::read`], of files that were checked.
    fn restore<S: DeserializeOwned>(&self, masters: &mut [(&str, &mut Master)]) -> Result<S> {
        let damaged = |reason: String| self.damaged(reason);
        let manifest: Manifest<S> = self.manifest()?;
        if manifest.updates.len() != masters.len() {
            let (held, trained) = (manifest.updates.len(), masters.len());
            return Err(damaged(format!("it holds {held} models, the run trains {trained}")));
        }
        let reader = self.reader(&manifest.shards)?;
        for ((prefix, master), updates) in masters.iter_mut().zip(manifest.updates) {
            restore((prefix, master), &reader).map_err(damaged)?;
            master.optimizer.updates = updates;
        }
        Ok(manifest.state)
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Checkpoint { path: self.path.clone(), reason }
    }

    /// Reads the manifest, whose hash is the one that was written.
    fn manifest<S: DeserializeOwned>(&self) -> Result<Manifest<S>> {
        let file =
            |name: &str| fs::read(self.path.join(name)).map_err(|error| self.damaged(format!("{name}: {error}")));
        let (text, hash) = (file(MANIFEST)?, file(HASH)?);
        if blake3::hash(&text).to_hex().as_bytes() != hash {
            return Err(self.damaged("the hash of its manifest differs from what was written".into()));
        }
        let manifest: Manifest<S> = serde_json::from_slice(&text).map_err(|error| self.damaged(error.to_string()))?;
        if manifest.format != FORMAT {
            let reason = format!("its layout is version {}, this build reads {FORMAT}", manifest.format);
            return Err(self.damaged(reason));
        }
        Ok(manifest)
    }

    fn reader(&self, shards: &[Shard]) -> Result<Reader> {
        let paths: Vec<PathBuf> = shards.iter().map(|shard| self.path.join(&shard.file)).collect();
        Reader::open(paths.iter().map(PathBuf::as_path)).map_err(|reason| self.damaged(reason))
    }

    /// Checks the hashes of every n-th shard, n the number of ranks.
    fn verify_share(&self, ranks: &Ranks) -> Result<u64> {
        let manifest: Manifest<serde::de::IgnoredAny> = self.manifest()?;
        let mut bytes = 0;
        for shard in manifest.shards.iter().skip(ranks.rank()).step_by(ranks.size()) {
            let found = shard::digest(&self.path.join(&shard.file));
            let (size, hash) = found.map_err(|error| self.damaged(format!("{}: {error}", shard.file)))?;
            if hash != shard.hash {
                return Err(self.damaged(format!("the hash of {} differs from what was written", shard.file)));
            }
            bytes += size;
        }
        Ok(bytes)
    }

    /// Reads all files and checks their hashes; returns their size in bytes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a file is missing or cut, or its hash differs.
    pub fn verify(&self) -> Result<u64> {
        self.verify_share(&Ranks::default())
    }

    /// Reads the policy's weights, float32.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn policy(&self) -> Result<Weights> {
        self.verify()?;
        let reader = self.reader(&self.manifest::<serde::de::IgnoredAny>()?.shards)?;
        let whole = |key: &String| {
            let name = key.strip_prefix("master.")?;
            let rows = reader.shape(key)?[0];
            Some(reader.rows(key, 0..rows).map(|tensor| (name.to_owned(), tensor)))
        };
        let weights = reader.names().filter_map(whole).collect::<std::result::Result<_, _>>();
        weights.map(Weights).map_err(|reason| self.damaged(reason))
    }
}

/// Returns the updates of each model's optimizer.
pub(crate) fn updates(masters: &[(&str, &Master)]) -> Vec<u64> {
    masters.iter().map(|(_, master)| master.optimizer.updates).collect()
}

fn restore((prefix, master): (&str, &Master), reader: &Reader) -> std::result::Result<(), String> {
    let _no_grad = tch::no_grad_guard();
    for (name, shape) in master.shapes() {
        let key = format!("{prefix}master.{name}");
        let found = reader.shape(&key).ok_or_else(|| format!("{key} is missing"))?;
        if found != shape {
            return Err(format!("{key} has shape {found:?}, the model has {shape:?}"));
        }
        master.replace(name, &reader.rows(&key, 0..shape[0])?);
    }
    for (part, tensors) in shard::parts(master).into_iter().skip(1) {
        for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.numel() > 0) {
            let key = format!("{prefix}{part}.{name}");
            let begin = master.rows(name).start;
            let rows = reader.rows(&key, begin..begin + tensor.size()[0])?;
            if rows.size() != tensor.size() {
                return Err(format!("{key} has rows {:?}, the model has {:?}", rows.size(), tensor.size()));
            }
            tensor.detach().copy_(&rows);
        }
    }
    Ok(())
}

/// Lists the checkpoints under `root`, newest first.
pub fn list(root: &Path) -> Vec<Checkpoint> {
    // Without a folder there are none; `latest` tells a folder that cannot be read from that.
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<Checkpoint> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
            Some(Checkpoint { step, path: entry.path() })
        })
        .collect();
    found.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.step));
    found
}

/// What [`latest`] found.
#[derive(Debug)]
pub struct Restored<S> {
    /// The newest whole checkpoint with its state; `None` if there is no checkpoint.
    pub found: Option<(Checkpoint, S)>,
    /// Why newer ones were passed over.
    pub damaged: Vec<Error>,
}

/// Reads the newest checkpoint that is whole into `masters`; damaged ones are passed over and named. All ranks of the masters call it, and
/// all take the same one: each checks a share of the files.
///
/// # Errors
/// The error of the oldest one if every checkpoint is damaged; [`Error::Io`] for a folder that cannot be read.
pub fn latest<S: DeserializeOwned>(root: &Path, masters: &mut [(&str, &mut Master)]) -> Result<Restored<S>> {
    // A folder that cannot be read is not one without checkpoints: going on would train from the start again.
    match fs::read_dir(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("read", root)(error)),
        _ => {}
    }
    let ranks = masters.first().map(|(_, master)| master.ranks().clone()).unwrap_or_default();
    let mut passed_over = Vec::new();
    for checkpoint in list(root) {
        let checked = ranks.agree(checkpoint.verify_share(&ranks));
        match checked.and_then(|_| ranks.agree(checkpoint.restore(masters))) {
            Ok(state) => return Ok(Restored { found: Some((checkpoint, state)), damaged: passed_over }),
            Err(error) => passed_over.push(error),
        }
    }
    match passed_over.pop() {
        Some(error) => Err(error),
        None => Ok(Restored { found: None, damaged: Vec::new() }),
    }
}

/// Removes all checkpoints under `root` but the newest `keep` (at least one).
///
/// # Errors
/// [`Error::Io`] with the folder that cannot be removed.
pub fn prune(root: &Path, keep: usize) -> Result<()> {
    for checkpoint in list(root).into_iter().skip(keep.max(1)) {
        match fs::remove_dir_all(&checkpoint.path) {
            // Another learner of the run, which goes, may have removed it at the same time.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(io("remove", &checkpoint.path))?,
        }
    }
    Ok(())
}
