//! Checkpoints: masters, moments, average and the caller's state in one folder that appears whole or not at all.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use joust_core::failpoint;
use joust_model::Weights;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Serialize, de::DeserializeOwned};
use tch::{Kind, Tensor};

use crate::{Error, Master, Result};

const TENSORS: &str = "trainer.safetensors";
const STATE: &str = "state.json";
const HASH: &str = "hash";

/// A checkpoint folder, `checkpoint-<step>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Optimizer steps done.
    pub step: u64,
    /// The folder.
    pub path: PathBuf,
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(io("write", path))?;
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(io("flush", path))
}

/// Copies float32 elements as bytes.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut buffer = vec![0u8; tensor.numel() * 4];
    tensor.f_copy_data_u8(&mut buffer, tensor.numel())?;
    Ok(buffer)
}

impl Checkpoint {
    /// Writes masters, moments, averages and `state` under `root`, by a temporary folder and a rename.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, for example on a full disk; older checkpoints stay as they were.
    pub fn write(root: &Path, step: u64, masters: &[(&str, &Master)], state: &impl Serialize) -> Result<Self> {
        let path = root.join(format!("checkpoint-{step}"));
        let staging = root.join(format!(".checkpoint-{step}.staging"));
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(io("remove", &staging))?;
        }
        fs::create_dir_all(&staging).map_err(io("create", &staging))?;
        let tensors = serialize(masters)?;
        let updates: Vec<u64> = masters.iter().map(|(_, master)| master.optimizer.updates).collect();
        let state = serde_json::to_vec_pretty(&(updates, state))
            .map_err(|error| Error::Checkpoint { path: path.clone(), reason: error.to_string() })?;
        let hash = blake3::Hasher::new().update(&tensors).update(&state).finalize().to_hex();
        write_synced(&staging.join(TENSORS), &tensors)?;
        write_synced(&staging.join(STATE), &state)?;
        write_synced(&staging.join(HASH), hash.as_bytes())?;
        failpoint::pass("checkpoint_before_rename");
        if path.exists() {
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
        fs::rename(&staging, &path).map_err(io("rename", &staging))?;
        fs::File::open(root).and_then(|folder| folder.sync_all()).map_err(io("flush", root))?;
        Ok(Self { step, path })
    }

    /// Reads masters, moments and averages back into `masters` and returns the state.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a file is missing or cut, its hash differs, or its tensors are not those of `masters`.
    pub fn read<S: DeserializeOwned>(&self, masters: &mut [(&str, &mut Master)]) -> Result<S> {
        let damaged = |reason: String| self.damaged(reason);
        let (tensors, state) = self.files()?;
        let (updates, state): (Vec<u64>, S) =
            serde_json::from_slice(&state).map_err(|error| damaged(error.to_string()))?;
        if updates.len() != masters.len() {
            return Err(damaged(format!("it holds {} models, the run trains {}", updates.len(), masters.len())));
        }
        let tensors = SafeTensors::deserialize(&tensors).map_err(|error| damaged(error.to_string()))?;
        for ((prefix, master), updates) in masters.iter_mut().zip(updates) {
            restore((prefix, master), &tensors, &damaged)?;
            master.optimizer.updates = updates;
        }
        Ok(state)
    }
}

impl Checkpoint {
    fn damaged(&self, reason: String) -> Error {
        Error::Checkpoint { path: self.path.clone(), reason }
    }

    /// Reads tensors and state, whose hash is the one that was written.
    fn files(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let file =
            |name: &str| fs::read(self.path.join(name)).map_err(|error| self.damaged(format!("{name}: {error}")));
        let (tensors, state, hash) = (file(TENSORS)?, file(STATE)?, file(HASH)?);
        let found = blake3::Hasher::new().update(&tensors).update(&state).finalize().to_hex();
        if found.as_bytes() != hash {
            return Err(self.damaged("its hash differs from what was written".into()));
        }
        Ok((tensors, state))
    }

    /// Reads all files and checks their hash; returns their size in bytes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a file is missing or cut, or its hash differs.
    pub fn verify(&self) -> Result<u64> {
        self.files().map(|(tensors, state)| (tensors.len() + state.len()) as u64)
    }

    /// Reads the policy's weights, float32.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn policy(&self) -> Result<Weights> {
        let (tensors, _) = self.files()?;
        let file = SafeTensors::deserialize(&tensors).map_err(|error| self.damaged(error.to_string()))?;
        let mut weights = BTreeMap::new();
        for (key, view) in file.iter() {
            let Some(name) = key.strip_prefix("master.") else { continue };
            let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
            weights.insert(name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, Kind::Float)?);
        }
        Ok(Weights(weights))
    }
}

fn parts(master: &Master) -> Vec<(&'static str, &BTreeMap<String, Tensor>)> {
    let mut parts = vec![("master", &master.weights.0)];
    parts.extend(master.optimizer.memory());
    parts.extend(master.average.as_ref().map(|average| ("average", &average.weights.0)));
    parts.extend(master.past.as_ref().map(|past| ("past", &past.weights.0)));
    parts
}

fn serialize(masters: &[(&str, &Master)]) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    for (prefix, master) in masters {
        for (part, tensors) in parts(master) {
            for (name, tensor) in tensors {
                let shape: Vec<usize> = tensor.size().iter().map(|size| *size as usize).collect();
                data.push((format!("{prefix}{part}.{name}"), shape, bytes(tensor)?));
            }
        }
    }
    let views = data.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).expect("bytes were sized by this shape");
        (name.as_str(), view)
    });
    safetensors::serialize(views, None)
        .map_err(|error| Error::Checkpoint { path: TENSORS.into(), reason: error.to_string() })
}

fn restore((prefix, master): (&str, &Master), file: &SafeTensors<'_>, damaged: &dyn Fn(String) -> Error) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    for (part, tensors) in parts(master) {
        for (name, tensor) in tensors {
            let key = format!("{prefix}{part}.{name}");
            let view = file.tensor(&key).map_err(|error| damaged(format!("{key}: {error}")))?;
            let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
            if shape != tensor.size() {
                return Err(damaged(format!("{key} has shape {shape:?}, the model has {:?}", tensor.size())));
            }
            let value = Tensor::f_from_data_size(view.data(), &shape, Kind::Float)?;
            tensor.detach().f_copy_(&value)?;
        }
    }
    Ok(())
}

/// Lists the checkpoints under `root`, newest first.
pub fn list(root: &Path) -> Vec<Checkpoint> {
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

/// Reads the newest checkpoint that is whole into `masters`; damaged ones are passed over and named.
///
/// # Errors
/// The error of the oldest one if every checkpoint is damaged.
pub fn latest<S: DeserializeOwned>(root: &Path, masters: &mut [(&str, &mut Master)]) -> Result<Restored<S>> {
    let mut passed_over = Vec::new();
    for checkpoint in list(root) {
        match checkpoint.read(masters) {
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
        fs::remove_dir_all(&checkpoint.path).map_err(io("remove", &checkpoint.path))?;
    }
    Ok(())
}
