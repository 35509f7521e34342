//! What outlives the coordinator: its runs in one file, each run's events and added prompts in others.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use joust_core::{RunId, scratch::write_atomically};

use crate::{
    Error, Result,
    added::Added,
    cluster::Run,
    error::{io, sync_folder},
    events::EventLog,
};

/// The folder that the coordinator remembers in; one coordinator holds it at a time.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens a folder, made if missing.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        for name in ["events", "prompts"] {
            fs::create_dir_all(folder.join(name)).map_err(io("create", folder))?;
        }
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
        let bytes = serde_json::to_vec(runs).expect("runs hold only plain data");
        let path = self.runs_file();
        write_atomically(&path, &bytes).map_err(io("write", path))
    }

    fn prompts_file(&self, run: &RunId) -> PathBuf {
        self.folder.join("prompts").join(format!("{run}.jsonl"))
    }

    /// Opens the prompts that were added to a run.
    pub(crate) fn added(&self, run: &RunId) -> Result<Added> {
        Added::open(self.prompts_file(run))
    }

    /// Begins the prompts that are added to a new run: none, or those of the run that it goes on from.
    pub(crate) fn begin_added(&self, run: &Run) -> Result<Added> {
        let path = self.prompts_file(&run.id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", path)(error)),
            _ => {}
        }
        let source = run.forked_from.as_ref().map(|source| self.prompts_file(source)).filter(|source| source.is_file());
        if let Some(source) = source {
            fs::copy(source, &path).map_err(io("write", &path))?;
            File::open(&path).and_then(|file| file.sync_all()).map_err(io("flush", &path))?;
            sync_folder(&path).map_err(io("flush", &path))?;
        }
        self.added(&run.id)
    }

    /// Opens the events of a run.
    pub(crate) fn events(&self, run: &RunId) -> Result<EventLog> {
        EventLog::open(&self.folder.join("events").join(format!("{run}.jsonl")))
    }
}
