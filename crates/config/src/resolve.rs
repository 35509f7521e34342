//! From text to a file in force: defaults < preset < file < environment < `--set`, each value with its origin.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Error, Result,
    schema::{check, schema_of},
    tree::{Origin, Tree, parse_value},
};

/// A kind of file that [`resolve`] reads; implemented by the files of this crate only.
pub trait ConfigFile: Serialize + DeserializeOwned + JsonSchema + private::Sealed {
    /// What a user calls it.
    const KIND: &'static str;
    /// Begin of the environment variables that override its keys.
    const ENV_PREFIX: &'static str;
    /// Keys that do not determine the result and stay out of the hash.
    const OUTSIDE_HASH: &'static [&'static str];

    /// Returns the paths that are read from the file's own folder.
    fn inputs(&mut self) -> Vec<&mut PathBuf>;

    /// Lists what its preset sets, below everything that is written; the name comes first.
    fn preset(_written: &dyn Fn(&str) -> Option<Value>) -> Option<(String, Vec<(&'static str, Value)>)> {
        None
    }

    /// Fills what follows from other keys; returns each filled key with the key that it follows from.
    fn complete(&mut self, _written: &dyn Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Finds what no single key shows to be wrong; `place` tells where a key was written.
    fn problems(&self, _place: &dyn Fn(&str) -> String) -> Vec<Error> {
        Vec::new()
    }
}

/// Keeps [`ConfigFile`] to the files of this crate.
pub(crate) mod private {
    /// Only this crate can name it.
    pub trait Sealed {}
}

/// A file in force: every value concrete, every origin known.
#[derive(Debug, Clone)]
pub struct Resolved<F = crate::RunFile> {
    /// The values; input paths are absolute, `output.dir` is as written.
    pub run: F,
    /// Origin of every dotted key that something set; other keys have their default.
    pub origins: BTreeMap<String, Origin>,
    /// BLAKE3, hexadecimal, of the canonical JSON of what determines the result: not the name, not the output, not how often
    /// a checkpoint is written, and of an input path only its last part, so that a run can move to another folder. What the
    /// inputs hold is not in it.
    pub hash: String,
}

/// Reads a file and the environment of this process, and resolves them.
///
/// # Errors
/// [`Error::Read`] for a file that cannot be read, else as [`resolve`].
pub fn load<F: ConfigFile>(path: &Path, overrides: &[String]) -> Result<Resolved<F>> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    resolve(&text, path, overrides, &env)
}

/// Resolves a file: defaults < preset < `text` < environment variables like `JOUST__LEARNER__STEPS` < `overrides`.
///
/// # Arguments
/// * `text` - the file as TOML.
/// * `path` - where it lies: named in errors; its folder is what relative input paths start from.
/// * `overrides` - `key=value` with a dotted key and a TOML value; a bare word is a text.
/// * `env` - names and values; those without the file's prefix are ignored.
///
/// # Errors
/// [`Error`] naming key, value, place and what to do; [`Error::Several`] when there are several problems.
pub fn resolve<F: ConfigFile>(
    text: &str,
    path: &Path,
    overrides: &[String],
    env: &[(String, String)],
) -> Result<Resolved<F>> {
    let file = path.display().to_string();
    let mut tree = Tree::parse(text, &file)?;
    add_env::<F>(&mut tree, env)?;
    for text in overrides {
        add_override(&mut tree, text)?;
    }
    let schema = schema_of::<F>();
    Error::from_list(check(&schema, &tree, &file))?;
    if let Some((name, values)) = F::preset(&|key| tree.get(key).cloned()) {
        let origin = Origin::Preset(name);
        for (key, value) in values {
            tree.set_absent(key, value, &origin)?;
        }
    }
    let mut run: F = serde_json::from_value(tree.root.clone())
        .map_err(|error| Error::Decode { file: file.clone(), reason: error.to_string() })?;
    for (key, from) in run.complete(&|key| tree.get(key).is_some()) {
        tree.origins.insert(key.to_owned(), Origin::Derived(from.to_owned()));
    }
    Error::from_list(run.problems(&|key| tree.place(key)))?;
    rebase(&mut run, path)?;
    let hash = hash_of(&run)?;
    Ok(Resolved { run, origins: tree.origins, hash })
}

/// Returns the JSON Schema of a file, for editors and for `joust config schema`.
pub fn schema<F: ConfigFile>() -> Value {
    schema_of::<F>()
}

fn add_env<F: ConfigFile>(tree: &mut Tree, env: &[(String, String)]) -> Result<()> {
    let mut mine: Vec<_> =
        env.iter().filter_map(|(name, value)| Some((name.strip_prefix(F::ENV_PREFIX)?, name, value))).collect();
    // The environment has no order of its own; sorted, the same variables always give the same result.
    mine.sort();
    for (key, name, value) in mine {
        let key = key.to_lowercase().replace("__", ".");
        tree.set(&key, parse_value(value), &Origin::Env(name.clone()))?;
    }
    Ok(())
}

fn add_override(tree: &mut Tree, text: &str) -> Result<()> {
    let invalid = || Error::Override { text: text.to_owned() };
    let (key, value) = text.split_once('=').ok_or_else(invalid)?;
    let key = key.trim();
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(invalid());
    }
    tree.set(key, parse_value(value.trim()), &Origin::Set(text.to_owned()))
}

/// Makes input paths absolute, starting from the file's folder.
fn rebase<F: ConfigFile>(run: &mut F, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    for input in run.inputs() {
        let joined = folder.join(&*input);
        *input = std::path::absolute(&joined).map_err(|source| Error::Read { path: joined, source })?;
    }
    Ok(())
}

fn hash_of<F: ConfigFile>(run: &F) -> Result<String> {
    let undecodable = |error: serde_json::Error| Error::Decode { file: F::KIND.to_owned(), reason: error.to_string() };
    let mut placeless: F = serde_json::to_value(run).and_then(serde_json::from_value).map_err(undecodable)?;
    for input in placeless.inputs() {
        *input = input.file_name().map(PathBuf::from).unwrap_or_default();
    }
    let mut value = serde_json::to_value(&placeless).map_err(undecodable)?;
    for key in F::OUTSIDE_HASH {
        remove(&mut value, key);
    }
    let mut canonical = String::new();
    write_canonical(&value, &mut canonical);
    Ok(blake3::hash(canonical.as_bytes()).to_hex().to_string())
}

fn remove(value: &mut Value, key: &str) {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let Some(map) = value.as_object_mut() else { return };
    match rest {
        None => drop(map.remove(first)),
        Some(rest) => map.get_mut(first).into_iter().for_each(|inner| remove(inner, rest)),
    }
}

/// Writes JSON with sorted keys and without nulls, whatever order `serde_json` was built to keep.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().filter(|(_, value)| !value.is_null()).collect();
            out.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write_canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
