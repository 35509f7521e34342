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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the child process, to the file that it fills.
    const FILE: &str = "JOUST_TEST_FULL_FILE";

    #[test]
    fn a_full_disk_leaves_whole_chunks_only() {
        if let Some(path) = std::env::var_os(FILE) {
            return fill(Path::new(&path));
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.jsonl");
        // A limit on the size of a file refuses in the middle of a chunk, as a full disk does.
        let name = "files::tests::a_full_disk_leaves_whole_chunks_only";
        let script = format!("trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact {name} --nocapture");
        let test = std::env::current_exe().expect("the test's own path");
        let output = Command::new("sh").arg("-c").arg(script).arg(test).env(FILE, &path).output().expect("a child");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::metadata(&path).expect("filled").len() > 0);
    }

    /// Fills the file until it is refused, then goes on with what still fits.
    fn fill(path: &Path) {
        let mut file = AppendFile::open(path, 0).expect("opens");
        let error = (0..1000).find_map(|_| file.append(&[7; 100]).err()).expect("refused at some time");
        assert!(error.to_string().contains("x.jsonl") && error.to_string().contains("--resume"), "{error}");
        let len = fs::metadata(path).expect("there").len();
        assert_eq!(len % 100, 0, "half a chunk stayed");
        file.append(&[7; 2]).expect("fits");
        assert_eq!(fs::metadata(path).expect("there").len(), len + 2);
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        replace(&path, |file| file.write_all(b"old").map_err(io("write", &path))).expect("written");
        let full = || io("write", &path)(std::io::ErrorKind::StorageFull.into());
        replace(&path, |file| file.write_all(b"ne").map_err(io("write", &path)).and(Err(full()))).expect_err("refused");
        assert_eq!(fs::read(&path).expect("read"), b"old");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing half-written stays");
    }
}
