//! `adapter_config.json`: which modules have an adapter, of which rank and scale, as PEFT reads it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::{Map, Value};

use super::{CONFIG, keys::ADAPTER};
use crate::{
    Error, LoraConfig, ModelConfig, Result,
    keys::{check, refused},
    lora::{ALL, RankAlpha, ends_with_module, projections},
};

/// Reads the shape of an adapter on a model.
///
/// # Errors
/// [`Error::Config`] with a key that has no such value here, or that would change what is computed.
pub(super) fn read(folder: &Path, keys: &Map<String, Value>, model: &ModelConfig) -> Result<LoraConfig> {
    let reader = Reader { path: folder.join(CONFIG), keys };
    check(&reader.path, keys, &[ADAPTER])?;
    if reader.at("peft_type") != "LORA" {
        return Err(reader.refused("peft_type", "supported is \"LORA\""));
    }
    let names: Vec<String> = projections(model).into_iter().map(|(name, _)| name).collect();
    let config = LoraConfig {
        rank: reader.rank(reader.at("r")).ok_or_else(|| reader.refused("r", "expected an integer of at least 1"))?,
        alpha: above(reader.at("lora_alpha"))
            .ok_or_else(|| reader.refused("lora_alpha", "expected a number above 0"))?,
        dropout: reader.dropout()?,
        targets: reader.targets(&names)?,
        rank_stabilized: reader.flag("use_rslora")?,
        exceptions: BTreeMap::new(),
    };
    let exceptions = reader.exceptions(&config, model)?;
    Ok(LoraConfig { exceptions, ..config })
}

struct Reader<'a> {
    path: PathBuf,
    keys: &'a Map<String, Value>,
}

fn above(value: &Value) -> Option<f64> {
    value.as_f64().filter(|value| *value > 0.0)
}

impl Reader<'_> {
    fn at(&self, key: &str) -> &Value {
        self.keys.get(key).unwrap_or(&Value::Null)
    }

    fn refused(&self, key: &str, expected: &str) -> Error {
        refused(&self.path, key, self.at(key), expected)
    }

    fn rank(&self, value: &Value) -> Option<i64> {
        value.as_i64().filter(|rank| *rank > 0)
    }

    fn dropout(&self) -> Result<f64> {
        let value = self.at("lora_dropout");
        let dropout = if value.is_null() { Some(0.0) } else { value.as_f64() };
        let expected = "expected a probability in [0, 1)";
        dropout.filter(|p| (0.0..1.0).contains(p)).ok_or_else(|| self.refused("lora_dropout", expected))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.at(key) {
            Value::Null => Ok(false),
            value => value.as_bool().ok_or_else(|| self.refused(key, "expected true or false")),
        }
    }

    /// Reads a list of names, or one name.
    fn list(&self, key: &str) -> Result<Vec<String>> {
        let names = match self.at(key) {
            Value::Null => Some(Vec::new()),
            Value::String(name) if name.is_empty() => Some(Vec::new()),
            Value::String(name) => Some(vec![name.clone()]),
            Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        names.ok_or_else(|| self.refused(key, "expected a list of names"))
    }

    /// Compiles a regular expression of a key.
    fn regex(&self, key: &str, text: &str) -> Result<Regex> {
        let expected = "a regular expression that cannot be read; write a list of module names";
        Regex::new(text).map_err(|_| self.refused(key, expected))
    }

    /// Finds what has an adapter: the names as they are written, or those of the modules that they leave.
    fn targets(&self, names: &[String]) -> Result<Vec<String>> {
        let key = "target_modules";
        let wanted = match self.at(key) {
            Value::String(all) if all == ALL => vec![all.clone()],
            Value::String(pattern) => {
                let whole = self.regex(key, &format!("^(?:{pattern})$"))?;
                names.iter().filter(|name| whole.is_match(name)).cloned().collect()
            }
            Value::Array(_) => self.list(key)?,
            _ => return Err(self.refused(key, "expected a list of module names, \"all-linear\" or a pattern")),
        };
        let layers = self.layers()?;
        if layers.is_none() && self.list("exclude_modules")?.is_empty() && !wanted.is_empty() {
            return Ok(wanted);
        }
        let mut left = Vec::new();
        for name in names {
            if self.is_target(name, &wanted, layers.as_deref()) && !self.is_excluded(name)? {
                left.push(name.clone());
            }
        }
        if left.is_empty() {
            return Err(self.refused(key, "no module of the model is left of it"));
        }
        Ok(left)
    }

    /// Returns whether a module is meant; layers choose among those that only end in a target.
    fn is_target(&self, name: &str, wanted: &[String], layers: Option<&[u64]>) -> bool {
        let meant = |target: &String| target == ALL || ends_with_module(name, target);
        let in_layer = || layers.is_none_or(|layers| layer_of(name).is_some_and(|layer| layers.contains(&layer)));
        wanted.iter().any(|target| target == name) || (wanted.iter().any(meant) && in_layer())
    }

    fn is_excluded(&self, name: &str) -> Result<bool> {
        let key = "exclude_modules";
        match self.at(key) {
            Value::String(pattern) if !pattern.is_empty() => {
                Ok(self.regex(key, &format!("^(?:{pattern})$"))?.is_match(name))
            }
            _ => Ok(self.list(key)?.iter().any(|excluded| ends_with_module(name, excluded))),
        }
    }

    /// Reads the layers that have adapters; without the key all have.
    fn layers(&self) -> Result<Option<Vec<u64>>> {
        let patterns = self.list("layers_pattern")?;
        if !patterns.is_empty() && !patterns.iter().any(|pattern| pattern == "layers") {
            return Err(self.refused("layers_pattern", "the model's layers are named \"layers\""));
        }
        let key = "layers_to_transform";
        let layers = match self.at(key) {
            Value::Array(layers) if !layers.is_empty() => layers.iter().map(Value::as_u64).collect::<Option<Vec<_>>>(),
            Value::Null | Value::Array(_) => return Ok(None),
            one => one.as_u64().map(|layer| vec![layer]),
        };
        let layers = layers.ok_or_else(|| self.refused(key, "expected numbers of layers"))?;
        if self.at("target_modules").is_string() {
            return Err(self.refused(key, "PEFT takes it beside a list of target_modules only"));
        }
        Ok(Some(layers))
    }

    /// Resolves the patterns to the modules whose rank or alpha is another one.
    fn exceptions(&self, config: &LoraConfig, model: &ModelConfig) -> Result<BTreeMap<String, RankAlpha>> {
        let plain = RankAlpha { rank: config.rank, alpha: config.alpha };
        let mut exceptions = BTreeMap::new();
        for (name, _) in config.modules(model)? {
            let rank = self.pattern("rank_pattern", &name)?.map(|value| {
                let found = self.rank(value);
                found.ok_or_else(|| self.refused("rank_pattern", "expected integers of at least 1"))
            });
            let alpha = self.pattern("alpha_pattern", &name)?.map(|value| {
                let found = above(value);
                found.ok_or_else(|| self.refused("alpha_pattern", "expected numbers above 0"))
            });
            let own = RankAlpha {
                rank: rank.transpose()?.unwrap_or(plain.rank),
                alpha: alpha.transpose()?.unwrap_or(plain.alpha),
            };
            if own != plain {
                exceptions.insert(name, own);
            }
        }
        Ok(exceptions)
    }

    /// Finds what a pattern says of a module. PEFT takes the first that matches; the order of keys is not kept here.
    fn pattern(&self, key: &str, name: &str) -> Result<Option<&Value>> {
        let patterns = match self.at(key) {
            Value::Null => return Ok(None),
            Value::Object(patterns) => patterns,
            _ => return Err(self.refused(key, "expected an object of module names")),
        };
        let mut found = None;
        for (pattern, value) in patterns {
            if !self.regex(key, &format!(r"^(?:.*\.)?(?:{pattern})$"))?.is_match(name) {
                continue;
            }
            if found.is_some_and(|found| found != value) {
                return Err(self.refused(key, &format!("two of its patterns match {name}; write one of them")));
            }
            found = Some(value);
        }
        Ok(found)
    }
}

/// Returns the number of a module's layer.
fn layer_of(name: &str) -> Option<u64> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}
