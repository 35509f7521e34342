//! One rank's part of a checkpoint: its rows of masters, moments and averages in a safetensors file.
//!
//! A tensor is named `<model><part>.<weight>@<row>` after the row that it begins with, so that any number of ranks finds its rows again.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufReader, Read},
    path::Path,
    thread::{self, JoinHandle},
};

use joust_core::failpoint;
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::io;
use crate::{Error, Master, Result};

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name in the checkpoint's folder.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 over it, hexadecimal.
    pub hash: String,
}

/// A shard that is being written by a thread of its own. What it reads must not change before [`Writing::wait`].
#[derive(Debug)]
pub(crate) struct Writing(JoinHandle<Result<Shard>>);

impl Writing {
    /// Begins to write the shard of a rank into `folder`.
    pub(crate) fn begin(folder: &Path, rank: usize, masters: &[(&str, &Master)]) -> Result<Self> {
        let file = format!("shard-{rank}.safetensors");
        let path = folder.join(&file);
        let tensors = tensors(masters);
        let write = move || {
            let views = tensors.iter().map(|(name, lazy)| (name.as_str(), lazy));
            safetensors::serialize_to_file(views, None, &path).map_err(|error| unwritten(&path, error))?;
            failpoint::pass("rank_in_checkpoint");
            File::open(&path).and_then(|file| file.sync_all()).map_err(io("flush", &path))?;
            let (bytes, hash) = digest(&path).map_err(io("read", &path))?;
            Ok(Shard { file, bytes, hash })
        };
        let begun = thread::Builder::new().name("joust-checkpoint".into()).spawn(write);
        begun.map(Self).map_err(io("start a thread for", folder))
    }

    /// Waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, for example on a full disk.
    pub(crate) fn wait(self) -> Result<Shard> {
        self.0.join().unwrap_or_else(|_| {
            Err(Error::Checkpoint { path: "shard".into(), reason: "the thread that writes it panicked".into() })
        })
    }
}

fn unwritten(path: &Path, error: safetensors::SafeTensorError) -> Error {
    match error {
        safetensors::SafeTensorError::IoError(source) => io("write", path)(source),
        other => Error::Checkpoint { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Returns size and BLAKE3 of a file.
pub(super) fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let (mut file, mut hasher, mut buffer) =
        (BufReader::new(File::open(path)?), blake3::Hasher::new(), vec![0; 1 << 20]);
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hasher.finalize().to_hex().to_string()));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// A tensor whose bytes are copied when they are written, so that one is copied at a time.
struct Lazy {
    tensor: Tensor,
    shape: Vec<usize>,
}

impl View for &Lazy {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = self.tensor.to_device(tch::Device::Cpu).contiguous();
        let mut buffer = vec![0u8; self.data_len()];
        tensor.copy_data_u8(&mut buffer, tensor.numel());
        buffer.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * 4
    }
}

/// Lists what a rank keeps of each weight: the part's name, and the tensors by weight.
pub(super) fn parts(master: &Master) -> Vec<(&'static str, &std::collections::BTreeMap<String, Tensor>)> {
    let mut parts = vec![("master", &master.weights.0)];
    parts.extend(master.optimizer.memory());
    parts.extend(master.average.as_ref().map(|average| ("average", &average.weights.0)));
    parts.extend(master.past.as_ref().map(|past| ("past", &past.weights.0)));
    parts
}

fn tensors(masters: &[(&str, &Master)]) -> Vec<(String, Lazy)> {
    let mut tensors = Vec::new();
    for (prefix, master) in masters {
        for (part, all) in parts(master) {
            for (name, tensor) in all.iter().filter(|(_, tensor)| tensor.numel() > 0) {
                let shape = tensor.size().iter().map(|size| *size as usize).collect();
                let lazy = Lazy { tensor: tensor.detach().to_kind(Kind::Float), shape };
                tensors.push((format!("{prefix}{part}.{name}@{}", master.rows(name).start), lazy));
            }
        }
    }
    tensors
}
