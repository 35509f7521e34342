//! PEFT folders in and out: `adapter_config.json`, `adapter_model.safetensors`, and the tokenizer files of the base.

mod config;
mod keys;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tch::Kind;

use crate::{
    Adapter, Dtype, Error, LoraConfig, ModelConfig, Result, Weights,
    folder::{load, publish, read_json, read_safetensors, write_json, write_safetensors},
    keys::refused,
    lora::{ALL, RankAlpha},
};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of a model's modules.
const PREFIX: &str = "base_model.model.";

/// A folder that holds an adapter, and the base that it names.
#[derive(Debug)]
pub struct AdapterFolder {
    /// Folder of the base model.
    pub base: PathBuf,
    /// The adapter, float32.
    pub adapter: Adapter,
}

/// Loads a model folder, or the adapter of a PEFT folder with its base.
///
/// # Returns
/// Config and weights, of the base where there is an adapter, and that.
///
/// # Errors
/// As [`load`] and [`read_adapter`].
pub fn open(folder: &Path) -> Result<(ModelConfig, Weights, Option<AdapterFolder>)> {
    if !folder.join(CONFIG).is_file() {
        let (config, weights) = load(folder)?;
        return Ok((config, weights, None));
    }
    let base = base_of(folder)?;
    let (config, weights) = load(&base)?;
    let adapter = read_adapter(folder, &config)?;
    Ok((config, weights, Some(AdapterFolder { base, adapter })))
}

/// Finds the base that an adapter names: as it is written, or from the adapter's folder on.
fn base_of(folder: &Path) -> Result<PathBuf> {
    let keys = read_json(folder, CONFIG)?;
    let named = keys.get("base_model_name_or_path").unwrap_or(&Value::Null);
    let found = named.as_str().filter(|name| !name.is_empty()).and_then(|name| {
        let places = [PathBuf::from(name), folder.join(name)];
        places.into_iter().find(|place| place.join("config.json").is_file())
    });
    let expected = "expected a model folder, absolute, or relative to the current or the adapter's folder; write where the base is";
    found.ok_or_else(|| refused(&folder.join(CONFIG), "base_model_name_or_path", named, expected))
}

/// Reads the adapter of a PEFT folder for a model; float32.
///
/// # Errors
/// A file that is missing or broken, an adapter of another kind than plain LoRA, or one that does not fit the model.
pub fn read_adapter(folder: &Path, model: &ModelConfig) -> Result<Adapter> {
    let config = config::read(folder, &read_json(folder, CONFIG)?, model)?;
    let path = folder.join(TENSORS);
    if !path.is_file() {
        return Err(Error::MissingFile { folder: folder.into(), file: TENSORS.into() });
    }
    let mut found = BTreeMap::new();
    read_safetensors(&path, Kind::Float, &mut found)?;
    let error = |name: &str, problem: String| Error::Tensor { path: path.clone(), name: name.into(), problem };
    let mut weights = BTreeMap::new();
    for (name, shape) in config.tensors(model)? {
        let stored = format!("{PREFIX}{name}");
        let tensor = found.remove(&stored).ok_or_else(|| error(&stored, "it is missing".into()))?;
        if tensor.size() != shape {
            return Err(error(&stored, format!("its shape is {:?}, the base and r say {shape:?}", tensor.size())));
        }
        weights.insert(name, tensor);
    }
    match found.keys().next() {
        Some(name) => Err(error(name, "no target of adapter_config.json has such a tensor".into())),
        None => Ok(Adapter { config, weights: Weights(weights) }),
    }
}

/// Publishes an adapter as a PEFT folder on the base in `base`, with its tokenizer files, renamed into place at once; float32.
///
/// An older folder of the same name is replaced.
///
/// # Errors
/// [`Error::Io`] with the path; what was there before stays.
pub fn publish_adapter(folder: &Path, base: &Path, adapter: &Adapter) -> Result<()> {
    let LoraConfig { rank, alpha, dropout, targets, rank_stabilized, exceptions } = &adapter.config;
    let base_name = std::path::absolute(base).map_err(Error::io("find", base))?;
    let keys = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name.display().to_string(),
        "r": rank, "lora_alpha": whole(*alpha), "lora_dropout": dropout, "target_modules": written(targets),
        "bias": "none", "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "use_rslora": rank_stabilized,
        "use_dora": false, "rank_pattern": pattern(exceptions, |own| json!(own.rank)),
        "alpha_pattern": pattern(exceptions, |own| whole(own.alpha)), "modules_to_save": null,
    });
    let Value::Object(keys) = keys else { unreachable!("json! of braces is an object") };
    publish(folder, base, |staging| {
        let tensors = adapter.weights.0.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor));
        write_safetensors(&staging.join(TENSORS), Dtype::Float32, tensors)?;
        write_json(&staging.join(CONFIG), &keys)
    })
}

/// Writes 16.0 as 16, as PEFT does.
fn whole(alpha: f64) -> Value {
    if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) }
}

/// Writes what each exception says by the name of its module.
fn pattern(exceptions: &BTreeMap<String, RankAlpha>, value: impl Fn(&RankAlpha) -> Value) -> Value {
    exceptions.iter().map(|(name, own)| (name.clone(), value(own))).collect::<Map<_, _>>().into()
}

/// Names every projection where all are meant: PEFT stores `all-linear` so.
fn written(targets: &[String]) -> Value {
    match targets {
        [all] if all == ALL => json!(all),
        names => json!(names),
    }
}
