//! Hugging Face folders in and out; what is written appears whole or not at all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use joust_core::scratch::Scratch;
use safetensors::{Dtype as SafeDtype, SafeTensorError, View, serialize_to_file, tensor::Metadata};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use crate::{Dtype, Error, Head, ModelConfig, Result, Weights, weights::bytes};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";
/// Files besides the weights that make a folder usable elsewhere.
const COMPANIONS: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
];
/// Folder of the templates that have names.
const TEMPLATES: &str = "additional_chat_templates";

/// Loads config and weights of a folder; no weight loses precision, whatever the config names.
///
/// The weights are bfloat16 where all are stored so, else float32.
///
/// # Errors
/// A file that is missing, cut or malformed, an architecture that is not supported, a tensor that is missing, unknown or of
/// the wrong shape: each names file and value.
pub fn load(folder: &Path) -> Result<(ModelConfig, Weights)> {
    let path = folder.join("config.json");
    let config = ModelConfig::parse(&path, read_json(folder, "config.json")?)?;
    let files = weight_files(folder)?;
    let kind = widest(&files)?;
    let mut found = BTreeMap::new();
    for file in files {
        read_safetensors(&file, kind, &mut found)?;
    }
    let config = heads(config, &mut found);
    let weights = check(folder, &config, found)?;
    Ok((config, weights))
}

/// Finds the kind that holds the elements of all files.
fn widest(files: &[PathBuf]) -> Result<Kind> {
    for file in files {
        let header = Header::read(file)?;
        for name in header.metadata.offset_keys() {
            if header.kind_of(&name)? != Kind::BFloat16 {
                return Ok(Kind::Float);
            }
        }
    }
    Ok(Kind::BFloat16)
}

/// Decides what the output projection of a tied language model is, as `transformers` does: a stored one counts if it differs
/// from the embedding, and stands for the embedding if that is missing.
fn heads(config: ModelConfig, found: &mut BTreeMap<String, Tensor>) -> ModelConfig {
    if config.head != Head::CausalLm || !config.tie_word_embeddings {
        return config;
    }
    match (found.remove(OUTPUT), found.get(EMBEDDING)) {
        (Some(head), None) => {
            found.insert(EMBEDDING.to_owned(), head);
            config
        }
        (Some(head), Some(embedding)) if head != *embedding => {
            found.insert(OUTPUT.to_owned(), head);
            config.untied()
        }
        _ => config,
    }
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

/// What a safetensors file says of its tensors; the file stands behind it.
struct Header<'a> {
    path: &'a Path,
    file: fs::File,
    metadata: Metadata,
}

impl<'a> Header<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let broken = |reason: String| Error::Safetensors { path: path.into(), reason };
        let mut file = fs::File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        if size < 8 {
            return Err(broken(format!("it has {size} bytes, expected a header")));
        }
        let length = take(&mut file, path, 8)?.try_into().expect("eight bytes were read");
        let length = u64::from_le_bytes(length);
        if length > size - 8 {
            return Err(broken(format!("its header has {length} bytes, the file {size}")));
        }
        let text = take(&mut file, path, length)?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        let (expected, found) = (metadata.data_len() as u64, size - 8 - length);
        if expected != found {
            return Err(broken(format!("its tensors have {expected} bytes, the file holds {found} of them")));
        }
        Ok(Self { path, file, metadata })
    }

    fn kind_of(&self, name: &str) -> Result<Kind> {
        match self.metadata.info(name).map(|info| info.dtype) {
            Some(SafeDtype::F32) => Ok(Kind::Float),
            Some(SafeDtype::BF16) => Ok(Kind::BFloat16),
            Some(SafeDtype::F16) => Ok(Kind::Half),
            other => {
                let found = other.map_or("missing".to_owned(), |dtype| format!("{dtype:?}"));
                let problem = format!("its type is {found}, supported are F32, BF16 and F16");
                Err(Error::Tensor { path: self.path.into(), name: name.into(), problem })
            }
        }
    }
}

fn take(file: &mut fs::File, path: &Path, bytes: u64) -> Result<Vec<u8>> {
    let mut data = vec![0; bytes as usize];
    file.read_exact(&mut data).map_err(Error::io("read", path))?;
    Ok(data)
}

/// Reads a file's tensors in a kind, one after the other, so that the file never lies in memory beside them.
pub(crate) fn read_safetensors(path: &Path, kind: Kind, into: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let mut header = Header::read(path)?;
    for name in header.metadata.offset_keys() {
        let stored = header.kind_of(&name)?;
        let info = header.metadata.info(&name).expect("the name is one of its own");
        let shape: Vec<i64> = info.shape.iter().map(|size| *size as i64).collect();
        let data = take(&mut header.file, path, (info.data_offsets.1 - info.data_offsets.0) as u64)?;
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
    // Older writers stored buffers; a reward model may keep the output projection of the language model that it was.
    let ignored = |name: &str| name.ends_with("rotary_emb.inv_freq") || name == OUTPUT;
    match found.keys().find(|name| !ignored(name)) {
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

/// As [`publish_folder`], of a folder whose other files `edit` changes or adds to before it appears.
///
/// # Errors
/// As [`publish_folder`], and what `edit` says.
pub fn publish_edited(
    folder: &Path,
    source: &Path,
    (config, weights): (&ModelConfig, &Weights),
    edit: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    publish(folder, source, |staging| {
        save(staging, config, weights)?;
        edit(staging)
    })
}

/// Copies the templates that have names, where there are some.
fn copy_templates(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir(to).map_err(Error::io("create", to))?;
    for entry in fs::read_dir(from).map_err(Error::io("read", from))? {
        let path = entry.map_err(Error::io("read", from))?.path();
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|end| end == "jinja")) {
            fs::copy(&path, to.join(name)).map_err(Error::io("write", to.join(name)))?;
        }
    }
    Ok(())
}

/// Publishes the tokenizer files of `source` with what `write` puts beside them.
pub(crate) fn publish(folder: &Path, source: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let scratch = Scratch::beside(folder).map_err(Error::io("create a folder beside", folder))?;
    let staging = scratch.path();
    for file in COMPANIONS.iter().filter(|file| source.join(file).is_file()) {
        fs::copy(source.join(file), staging.join(file)).map_err(Error::io("write", staging.join(file)))?;
    }
    copy_templates(&source.join(TEMPLATES), &staging.join(TEMPLATES))?;
    write(staging)?;
    for entry in fs::read_dir(staging).map_err(Error::io("read", staging))? {
        let path = entry.map_err(Error::io("read", staging))?.path();
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("flush", &path))?;
    }
    scratch.publish(folder).map_err(Error::io("publish", folder))
}
