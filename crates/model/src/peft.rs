//! PEFT folders in and out: `adapter_config.json`, `adapter_model.safetensors`, and the tokenizer files of the base.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tch::Kind;

use crate::{
    Adapter, Dtype, Error, LoraConfig, ModelConfig, Result, Weights,
    folder::{load, publish, read_json, read_safetensors, write_json, write_safetensors},
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

fn refused(folder: &Path, key: &str, value: &Value, expected: &str) -> Error {
    Error::Config { path: folder.join(CONFIG), key: key.into(), value: value.to_string(), expected: expected.into() }
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
    found.ok_or_else(|| refused(folder, "base_model_name_or_path", named, expected))
}

/// Reads the adapter of a PEFT folder for a model; float32.
///
/// # Errors
/// A file that is missing or broken, an adapter of another kind than plain LoRA, or one that does not fit the model.
pub fn read_adapter(folder: &Path, model: &ModelConfig) -> Result<Adapter> {
    let config = read_config(folder, &read_json(folder, CONFIG)?)?;
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

fn read_config(folder: &Path, keys: &Map<String, Value>) -> Result<LoraConfig> {
    let at = |key: &str| keys.get(key).unwrap_or(&Value::Null);
    let kinds = [
        ("peft_type", json!("LORA"), false),
        ("bias", json!("none"), true),
        ("use_dora", json!(false), true),
        ("use_rslora", json!(false), true),
        ("fan_in_fan_out", json!(false), true),
        ("rank_pattern", json!({}), true),
        ("alpha_pattern", json!({}), true),
        ("modules_to_save", json!([]), true),
        ("layers_to_transform", json!([]), true),
    ];
    for (key, wanted, or_null) in kinds {
        if *at(key) != wanted && !(or_null && at(key).is_null()) {
            return Err(refused(folder, key, at(key), &format!("supported is {wanted}")));
        }
    }
    let above = |value: &Value| value.as_f64().filter(|value| *value > 0.0);
    let rank = at("r").as_i64().filter(|rank| *rank > 0);
    let dropout = at("lora_dropout").as_f64().unwrap_or(0.0);
    let targets = match at("target_modules") {
        Value::String(all) if all == "all-linear" => Some(vec![all.clone()]),
        Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    Ok(LoraConfig {
        rank: rank.ok_or_else(|| refused(folder, "r", at("r"), "expected an integer of at least 1"))?,
        alpha: above(at("lora_alpha"))
            .ok_or_else(|| refused(folder, "lora_alpha", at("lora_alpha"), "expected a number above 0"))?,
        dropout,
        targets: targets.ok_or_else(|| {
            refused(
                folder,
                "target_modules",
                at("target_modules"),
                "expected a list of module names, or \"all-linear\"",
            )
        })?,
    })
}

/// Publishes an adapter as a PEFT folder on the base in `base`, with its tokenizer files, renamed into place at once; float32.
///
/// An older folder of the same name is replaced.
///
/// # Errors
/// [`Error::Io`] with the path; what was there before stays.
pub fn publish_adapter(folder: &Path, base: &Path, adapter: &Adapter) -> Result<()> {
    let LoraConfig { rank, alpha, dropout, targets } = &adapter.config;
    let base_name = std::path::absolute(base).map_err(Error::io("find", base))?;
    let keys = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name.display().to_string(),
        "r": rank, "lora_alpha": whole(*alpha), "lora_dropout": dropout, "target_modules": written(targets),
        "bias": "none", "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "use_rslora": false,
        "use_dora": false, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": null,
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

/// Names every projection where all are meant: PEFT stores `all-linear` so.
fn written(targets: &[String]) -> Value {
    match targets {
        [all] if all == "all-linear" => json!(all),
        names => json!(names),
    }
}
