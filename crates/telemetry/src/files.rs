//! Writing files so that a reader, or a process that follows a killed one, never meets half of one.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Result, error::io};

/// Replaces `path` by what `write` produces: temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// # Errors
/// [`crate::Error::Io`] with the path, or what `write` returns; `path` then holds what it held before.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staging = folder.join(format!(".{name}.staging"));
    let staged = File::create(&staging).map_err(io("create", &staging)).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all().map_err(io("flush", &staging))
    });
    if let Err(error) = staged {
        // On a full disk the half-written file is what fills it; the first error is the one to tell.
        let _ = fs::remove_file(&staging);
        return Err(error);
    }
    fs::rename(&staging, path).map_err(io("rename", &staging))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("flush", folder))
}

/// A file that grows by whole chunks: a failed write leaves nothing of its chunk behind.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl AppendFile {
    /// Opens `path`, made if missing, and continues behind its first `len` bytes.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub(crate) fn open(path: &Path, len: u64) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io("open", path))?;
        file.set_len(len).map_err(io("shorten", path))?;
        Ok(Self { path: path.to_owned(), file, len })
    }

    /// Appends one chunk and hands it to the operating system, so that it outlives this process.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path; the file then ends where it ended before.
    pub(crate) fn append(&mut self, chunk: &[u8]) -> Result<()> {
        if let Err(source) = self.file.write_all(chunk) {
            // Otherwise a later chunk would stand behind half of this one, in the middle of the file.
            let _ = self.file.set_len(self.len);
            return Err(io("write to", &self.path)(source));
        }
        self.len += chunk.len() as u64;
        Ok(())
    }
}
