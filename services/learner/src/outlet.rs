//! Where published weights wait for samplers in other processes: files in a folder, each model whole or not at all.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use joust_core::{ModelRef, ModelSet};
use joust_model::Weights;
use parking_lot::Mutex;
use tch::Tensor;
use tokio::sync::watch;

use crate::{Error, Result};

/// Models of a part that stay: a reader that is slower skips to the newest.
const KEPT: usize = 3;

/// Which of the weights of a model set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The policy.
    Policy,
    /// Its average.
    Average,
    /// The policy of one publish ago.
    Past,
    /// What the run began with, without an adapter, with configuration and tokenizer.
    Initial,
}

impl Part {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Average => "average",
            Self::Past => "past",
            Self::Initial => "initial",
        }
    }
}

/// A model that can be fetched: its files lie end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which weights they are.
    pub model: ModelRef,
    /// Folder of the files.
    pub folder: PathBuf,
    /// Name and size in bytes of each file, in the order of their bytes.
    pub files: Vec<(String, u64)>,
    /// BLAKE3 of all bytes, hexadecimal.
    pub blake3: String,
}

/// The published weights of one run.
#[derive(Debug)]
pub struct Outlet {
    folder: PathBuf,
    models: Mutex<BTreeMap<Part, Vec<Header>>>,
    /// Folders that lie elsewhere and do not change, by name; with their header once somebody asked for it.
    offered: Mutex<BTreeMap<String, (PathBuf, Option<Header>)>>,
    sets: watch::Sender<Option<ModelSet>>,
}

impl Outlet {
    /// Takes a folder of its own below `folder`, which one worker has for itself; what is left there of earlier outlets is removed.
    ///
    /// # Errors
    /// [`Error::Outlet`] for a folder that cannot be used.
    pub fn open(folder: &Path) -> Result<Self> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(failed(folder))?;
        }
        // An outlet that somebody still holds removes its own folder only.
        let own = format!("{}-{}", std::process::id(), OPENED.fetch_add(1, Ordering::Relaxed));
        let (parent, folder) = (folder, folder.join(own));
        fs::create_dir_all(&folder).map_err(failed(parent))?;
        let (models, offered) = (Mutex::default(), Mutex::default());
        Ok(Self { folder, models, offered, sets: watch::Sender::new(None) })
    }

    /// Writes weights as `model.safetensors` and makes them fetchable.
    ///
    /// # Errors
    /// [`Error::Outlet`] for a disk that takes no more.
    pub fn put(&self, part: Part, id: &ModelRef, weights: &Weights) -> Result<()> {
        self.put_files(part, id, |staging| {
            let path = staging.join("model.safetensors");
            let tensors: Vec<(&String, &Tensor)> = weights.0.iter().collect();
            Tensor::write_safetensors(&tensors, &path)
                .map_err(|error| Error::Outlet { path, reason: error.to_string() })
        })
    }

    /// Makes the files that `write` puts into a folder fetchable, all or none.
    ///
    /// # Errors
    /// [`Error::Outlet`], or what `write` says.
    pub fn put_files(&self, part: Part, id: &ModelRef, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let name = format!("{}-{}-{}", part.name(), id.generation, id.version);
        let (folder, staging) = (self.folder.join(&name), self.folder.join(format!(".{name}")));
        fs::create_dir_all(&staging).map_err(failed(&staging))?;
        write(&staging)?;
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed(&folder))?;
        }
        fs::rename(&staging, &folder).map_err(failed(&folder))?;
        let header = header(id.clone(), folder)?;
        let mut models = self.models.lock();
        let held = models.entry(part).or_default();
        held.retain(|found| found.folder != header.folder);
        held.push(header);
        let excess = held.len().saturating_sub(KEPT);
        for old in held.drain(..excess) {
            // A reader that has it open reads on.
            let _ = fs::remove_dir_all(old.folder);
        }
        Ok(())
    }

    /// Lets a folder be fetched that lies elsewhere and does not change.
    pub fn offer(&self, name: impl Into<String>, folder: impl Into<PathBuf>) {
        self.offered.lock().insert(name.into(), (folder.into(), None));
    }

    /// Finds a folder that was offered; blocks while its files are hashed for the first time.
    ///
    /// # Errors
    /// [`Error::Outlet`] for files that cannot be read.
    pub fn offered(&self, name: &str) -> Result<Option<Header>> {
        let mut offered = self.offered.lock();
        let Some((folder, known)) = offered.get_mut(name) else { return Ok(None) };
        if known.is_none() {
            let unnamed = ModelRef { generation: 0, version: 0, hash: String::new() };
            let found = header(unnamed, folder.clone())?;
            let model = ModelRef { hash: found.blake3.clone(), ..found.model };
            *known = Some(Header { model, ..found });
        }
        Ok(known.clone())
    }

    /// Says which models are those of now.
    pub fn announce(&self, set: ModelSet) {
        self.sets.send_replace(Some(set));
    }

    /// Returns the models of now, as they change; `None` until the first are known.
    pub fn watch(&self) -> watch::Receiver<Option<ModelSet>> {
        self.sets.subscribe()
    }

    /// Finds weights; of a part without a reference the newest.
    pub fn find(&self, part: Part, id: Option<&ModelRef>) -> Option<Header> {
        let models = self.models.lock();
        models.get(&part)?.iter().rev().find(|header| id.is_none_or(|id| *id == header.model)).cloned()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // What nobody serves is only in the way; the next process empties it too.
        let _ = fs::remove_dir_all(&self.folder);
        if let Some(parent) = self.folder.parent() {
            // Fails where another outlet is in it.
            let _ = fs::remove_dir(parent);
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Outlet { path, reason: error.to_string() }
}

/// Returns whether a file belongs to a model; a user's folder may hold more.
fn is_of_model(name: &str) -> bool {
    let end = Path::new(name).extension().and_then(|end| end.to_str());
    !name.starts_with('.') && end.is_some_and(|end| ["safetensors", "json", "jinja", "txt", "model"].contains(&end))
}

fn header(model: ModelRef, folder: PathBuf) -> Result<Header> {
    let mut names: Vec<String> = Vec::new();
    for entry in folder.read_dir().map_err(failed(&folder))? {
        let entry = entry.map_err(failed(&folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && is_of_model(&name) {
            names.push(name);
        }
    }
    names.sort();
    let (mut files, mut hasher) = (Vec::new(), blake3::Hasher::new());
    for name in names {
        let path = folder.join(&name);
        let before = hasher.count();
        hasher.update_mmap_rayon(&path).map_err(failed(&path))?;
        files.push((name, hasher.count() - before));
    }
    Ok(Header { model, folder, files, blake3: hasher.finalize().to_hex().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(version: u64) -> ModelRef {
        ModelRef { generation: 1, version, hash: "0".repeat(64) }
    }

    #[test]
    fn models_are_whole_and_the_oldest_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let outlet = Outlet::open(&folder.path().join("weights")).expect("opened");
        let weights = Weights([("a".to_owned(), Tensor::from_slice(&[1.0f32, 2.0]))].into_iter().collect());
        for version in 0..5 {
            outlet.put(Part::Policy, &id(version), &weights).expect("put");
        }
        assert!(outlet.find(Part::Policy, Some(&id(1))).is_none());
        let header = outlet.find(Part::Policy, Some(&id(4))).expect("there");
        assert_eq!(outlet.find(Part::Policy, None).as_ref(), Some(&header));
        let bytes = fs::read(header.folder.join("model.safetensors")).expect("there");
        assert_eq!(header.files, [("model.safetensors".to_owned(), bytes.len() as u64)]);
        assert_eq!(header.blake3, blake3::hash(&bytes).to_hex().to_string());
        // What could not be written is not there.
        let full = |_: &Path| Err(Error::Worker("full".into()));
        assert!(outlet.put_files(Part::Policy, &id(9), full).is_err());
        assert!(outlet.find(Part::Policy, Some(&id(9))).is_none());
        assert_eq!(
            header
                .folder
                .parent()
                .expect("a parent")
                .read_dir()
                .expect("there")
                .filter(|entry| {
                    let name = entry.as_ref().expect("an entry").file_name();
                    !name.to_string_lossy().starts_with('.')
                })
                .count(),
            KEPT
        );
        // A later one has a place of its own, which the first takes nothing from.
        let later = Outlet::open(&folder.path().join("weights")).expect("opened");
        later.put(Part::Policy, &id(7), &weights).expect("put");
        drop(outlet);
        assert!(later.find(Part::Policy, None).expect("there").folder.join("model.safetensors").is_file());
        drop(later);
        assert!(!folder.path().join("weights").exists());
    }
}
