//! Hugging Face folders in and out; what is written appears whole or not at all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use safetensors::{Dtype as SafeDtype, SafeTensorError, View, serialize_to_file, tensor::Metadata};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use crate::{Dtype, Error, ModelConfig, Result, Weights, weights::bytes};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Files besides the weights that make a folder usable elsewhere.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Loads config and weights of a folder; tensors stay in the kind that the config names.
///
/// # Errors
/// A file that is missing, cut or malformed, an architecture that is not supported, a tensor that is missing, unknown or of
/// the wrong shape: each names file and value.
pub fn load(folder: &Path) -> Result<(ModelConfig, Weights)> {
    let path = folder.join("config.json");
    let config = ModelConfig::parse(&path, read_json(folder, "config.json")?)?;
    let mut found = BTreeMap::new();
    for file in weight_files(folder)? {
        read_safetensors(&file, config.dtype.kind(), &mut found)?;
    }
    let weights = check(folder, &config, found)?;
    Ok((config, weights))
}

pub(crate) fn read_json(folder: &Path, file: &str) -> Result<Map<String, Value>> {
    let path = folder.join(file);
    if !path.is_file() {
        return Err(Error::MissingFile { folder: folder.into(), file: file.into() });
    }
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    serde_json::from_str(&text).map_err(|error| Error::Config {
        path,
        key: "the file".into(),
        value: error.to_string(),
        expected: "expected a JSON object".into(),
    })
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(SINGLE).is_file() {
        return Ok(vec![folder.join(SINGLE)]);
    }
    if !folder.join(INDEX).is_file() {
        return Err(Error::MissingFile { folder: folder.into(), file: SINGLE.into() });
    }
    let index = read_json(folder, INDEX)?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let mut files: Vec<&str> = map.into_iter().flat_map(Map::values).filter_map(Value::as_str).collect();
    files.sort_unstable();
    files.dedup();
    let missing = files.iter().find(|file| !folder.join(file).is_file());
    match missing {
        Some(file) => Err(Error::MissingFile { folder: folder.into(), file: (*file).into() }),
        None => Ok(files.into_iter().map(|file| folder.join(file)).collect()),
    }
}

/// Reads a file's tensors in a kind, one after the other, so that the file never lies in memory beside them.
pub(crate) fn read_safetensors(path: &Path, kind: Kind, into: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let broken = |reason: String| Error::Safetensors { path: path.into(), reason };
    let mut file = fs::File::open(path).map_err(Error::io("read", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let mut take = |bytes: u64| -> Result<Vec<u8>> {
        let mut data = vec![0; bytes as usize];
        file.read_exact(&mut data).map_err(Error::io("read", path))?;
        Ok(data)
    };
    if size < 8 {
        return Err(broken(format!("it has {size} bytes, expected a header")));
    }
    let header = u64::from_le_bytes(take(8)?.try_into().expect("eight bytes were read"));
    if header > size - 8 {
        return Err(broken(format!("its header has {header} bytes, the file {size}")));
    }
    let metadata: Metadata = serde_json::from_slice(&take(header)?).map_err(|error| broken(error.to_string()))?;
    let (expected, found) = (metadata.data_len() as u64, size - 8 - header);
    if expected != found {
        return Err(broken(format!("its tensors have {expected} bytes, the file holds {found} of them")));
    }
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).expect("the name is one of its own");
        let stored = match info.dtype {
            SafeDtype::F32 => Kind::Float,
            SafeDtype::BF16 => Kind::BFloat16,
            SafeDtype::F16 => Kind::Half,
            other => {
                let problem = format!("its type is {other:?}, supported are F32, BF16 and F16");
                return Err(Error::Tensor { path: path.into(), name, problem });
            }
        };
        let shape: Vec<i64> = info.shape.iter().map(|size| *size as i64).collect();
        let data = take((info.data_offsets.1 - info.data_offsets.0) as u64)?;
        into.insert(name, Tensor::f_from_data_size(&data, &shape, stored)?.to_kind(kind));
    }
    Ok(())
}

fn check(folder: &Path, config: &ModelConfig, mut found: BTreeMap<String, Tensor>) -> Result<Weights> {
    let error = |name: &str, problem: String| Error::Tensor { path: folder.into(), name: name.into(), problem };
    let mut weights = BTreeMap::new();
    for (name, shape) in config.tensors() {
        let tensor = found.remove(&name).ok_or_else(|| error(&name, "it is missing".into()))?;
        if tensor.size() != shape {
            return Err(error(&name, format!("its shape is {:?}, config.json says {shape:?}", tensor.size())));
        }
        weights.insert(name, tensor);
    }
    // Older writers stored buffers, and a copy of the embedding as head of a tied model.
    let known = |name: &str| name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight";
    match found.keys().find(|name| !known(name)) {
        Some(name) => Err(error(name, "the architecture in config.json has no such tensor".into())),
        None => Ok(Weights(weights)),
    }
}

/// Writes config and weights into an existing folder, the weights in `config.dtype`.
///
/// # Errors
/// [`Error::Io`] with the path, for example on a full disk.
pub fn save(folder: &Path, config: &ModelConfig, weights: &Weights) -> Result<()> {
    let tensors = weights.0.iter().map(|(name, tensor)| (name.clone(), tensor));
    write_safetensors(&folder.join(SINGLE), config.dtype, tensors)?;
    write_json(&folder.join("config.json"), &config.raw)
}

/// A tensor that is turned into bytes when its turn to be written comes, so that a file never lies in memory whole.
struct Lazy<'a> {
    tensor: &'a Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl View for Lazy<'_> {
    fn dtype(&self) -> SafeDtype {
        match self.dtype {
            Dtype::Float32 => SafeDtype::F32,
            Dtype::Bfloat16 => SafeDtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = bytes(&self.tensor.to_kind(self.dtype.kind()));
        Cow::Owned(data.expect("the buffer was sized by the tensor, which lies on a device that can be read"))
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.dtype.kind().elt_size_in_bytes()
    }
}

/// Writes tensors in one type.
pub(crate) fn write_safetensors<'a>(
    path: &Path,
    dtype: Dtype,
    tensors: impl Iterator<Item = (String, &'a Tensor)>,
) -> Result<()> {
    let views = tensors.map(|(name, tensor)| {
        let shape = tensor.size().iter().map(|size| *size as usize).collect();
        (name, Lazy { tensor, dtype, shape })
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => Error::io("write", path)(source),
        other => Error::Safetensors { path: path.to_owned(), reason: other.to_string() },
    })?;
    // It was written under a temporary name, which only its owner may read.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(Error::io("write", path))
}

pub(crate) fn write_json(path: &Path, map: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(map).expect("a JSON map always encodes");
    fs::write(path, text + "\n").map_err(Error::io("write", path))
}

/// Publishes a whole model folder: weights and config, and the tokenizer files of `source`, renamed into place at once.
///
/// An older folder of the same name is replaced.
///
/// # Errors
/// [`Error::Io`] with the path; what was there before stays.
pub fn publish_folder(folder: &Path, source: &Path, config: &ModelConfig, weights: &Weights) -> Result<()> {
    publish(folder, source, |staging| save(staging, config, weights))
}

/// Publishes what `write` puts into a staging folder, with the tokenizer files of `source`.
pub(crate) fn publish(folder: &Path, source: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let staging = folder.with_file_name(format!(".{name}.staging"));
    let retired = folder.with_file_name(format!(".{name}.retired"));
    for stale in [&staging, &retired] {
        if stale.exists() {
            fs::remove_dir_all(stale).map_err(Error::io("remove", stale))?;
        }
    }
    fs::create_dir_all(&staging).map_err(Error::io("create", &staging))?;
    write(&staging)?;
    for file in COMPANIONS.iter().filter(|file| source.join(file).is_file()) {
        fs::copy(source.join(file), staging.join(file)).map_err(Error::io("write", staging.join(file)))?;
    }
    for entry in fs::read_dir(&staging).map_err(Error::io("read", &staging))?.flatten() {
        fs::File::open(entry.path()).and_then(|file| file.sync_all()).map_err(Error::io("flush", entry.path()))?;
    }
    if folder.exists() {
        fs::rename(folder, &retired).map_err(Error::io("rename", folder))?;
    }
    fs::rename(&staging, folder).map_err(Error::io("rename", &staging))?;
    if retired.exists() {
        fs::remove_dir_all(&retired).map_err(Error::io("remove", &retired))?;
    }
    Ok(())
}
