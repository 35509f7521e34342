//! What outlives the coordinator: its runs in one file, each run's events in another.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use joust_core::RunId;

use crate::{Error, Result, cluster::Run, error::io, events::EventLog};

/// The folder that the coordinator remembers in; one coordinator holds it at a time.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens a folder, made if missing.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("events")).map_err(io("create", folder))?;
        let path = folder.join(".lock");
        let lock = File::create(&path).map_err(io("write", &path))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                let taken = std::io::Error::other("another coordinator uses this folder; stop it first");
                io("lock", &path)(taken)
            }
            fs::TryLockError::Error(error) => io("lock", &path)(error),
        })?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    fn runs_file(&self) -> PathBuf {
        self.folder.join("runs.json")
    }

    /// Reads the runs.
    pub(crate) fn runs(&self) -> Result<Vec<Run>> {
        let path = self.runs_file();
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| Error::State { path, reason: error.to_string() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(io("read", path)(error)),
        }
    }

    /// Writes the runs, whole or not at all.
    pub(crate) fn keep(&self, runs: &[Run]) -> Result<()> {
        let (path, staging) = (self.runs_file(), self.folder.join("runs.staging"));
        let bytes = serde_json::to_vec(runs).expect("runs hold only plain data");
        fs::write(&staging, bytes).map_err(io("write", &staging))?;
        File::open(&staging).and_then(|file| file.sync_all()).map_err(io("flush", &staging))?;
        fs::rename(&staging, &path).map_err(io("rename", &staging))
    }

    /// Opens the events of a run.
    pub(crate) fn events(&self, run: &RunId) -> Result<EventLog> {
        EventLog::open(&self.folder.join("events").join(format!("{run}.jsonl")))
    }
}
