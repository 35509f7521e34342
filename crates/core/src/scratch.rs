//! Scratch folders and files: made under names that nobody has, beside what they become, and gone unless they became it.
//!
//! Nothing that exists is reused or removed, whatever its name. A killed process leaves folders named
//! `.NAME.joust-XXXXXX`, which may be deleted by hand.

use std::{
    fs::{self, File, Permissions},
    io::{Error, ErrorKind, Result, Write},
    mem,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tempfile::{Builder, NamedTempFile, TempDir};

/// The scratch folders of this process, for [`remove_all`].
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder of this call alone; it is removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: Option<TempDir>,
}

fn prefix(target: &Path) -> Result<String> {
    let name = target.file_name().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the path names no file"))?;
    Ok(format!(".{}.joust-", name.to_string_lossy()))
}

/// Returns the folder that holds a path.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns whether a name is one that this module gives, of a process that is at work or was killed.
pub fn is_scratch(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|name| name.rsplit_once(".joust-"));
    parts.is_some_and(|(name, drawn)| !name.is_empty() && !drawn.is_empty() && !drawn.contains('.'))
}

impl Scratch {
    /// Makes an empty folder on the file system of `target`, whose parents are made where they are missing.
    ///
    /// # Errors
    /// What the system answers.
    pub fn beside(target: &Path) -> Result<Self> {
        let parent = parent(target);
        fs::create_dir_all(parent)?;
        Self::made(
            Builder::new().prefix(&prefix(target)?).permissions(Permissions::from_mode(0o777)).tempdir_in(parent),
        )
    }

    /// Makes an empty folder among the system's temporary ones.
    ///
    /// # Errors
    /// What the system answers.
    pub fn anywhere() -> Result<Self> {
        Self::made(Builder::new().prefix("joust-").tempdir())
    }

    fn made(folder: Result<TempDir>) -> Result<Self> {
        let folder = folder?;
        live().push(folder.path().to_owned());
        Ok(Self { folder: Some(folder) })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Gives the folder its name, in place of an older folder of that name.
    ///
    /// # Errors
    /// What the system answers; the older folder then stays.
    pub fn publish(mut self, target: &Path) -> Result<()> {
        let Some(folder) = self.folder.take() else { return Ok(()) };
        let path = folder.path().to_owned();
        let replaced = replace_folder(&path, target);
        forget(&path);
        if replaced.is_ok() {
            // It has another name now: nothing is left to remove.
            drop(folder.keep());
        }
        replaced
    }
}

/// Moves a folder to `target` and removes what was there.
fn replace_folder(folder: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        return fs::rename(folder, target);
    }
    let retired = Scratch::beside(target)?;
    // A signal between the two renames must not remove the only copy.
    forget(retired.path());
    let old = retired.path().join("old");
    fs::rename(target, &old)?;
    fs::rename(folder, target).inspect_err(|_| {
        if fs::rename(&old, target).is_err() {
            // What was there is worth more than a clean folder.
            mem::forget(retired);
        }
    })
}

fn forget(path: &Path) {
    live().retain(|folder| folder != path);
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            forget(folder.path());
        }
    }
}

/// Removes the scratch folders of this process, before it ends by a signal.
pub fn remove_all() {
    for folder in mem::take(&mut *live()) {
        // The process ends: nobody could be given an error.
        let _ = fs::remove_dir_all(folder);
    }
}

/// Checks that `target` can be made, and leaves nothing of the try.
///
/// # Errors
/// What the system answers.
pub fn check_target(target: &Path) -> Result<()> {
    let there = target.ancestors().skip(1).find(|folder| folder.as_os_str().is_empty() || folder.exists());
    let there = there.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Builder::new().prefix(&prefix(target)?).tempdir_in(there).map(drop)
}

/// Replaces a file by these bytes: a temporary file beside it, flushed, renamed, its folder flushed.
///
/// # Errors
/// What the system answers; the file then holds what it held before.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_file(path, 0o666, bytes)
}

/// As [`write_atomically`], of a file that only its owner may read.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_privately(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_file(path, 0o600, bytes)
}

/// Makes an empty file beside `path`; it is removed when dropped, unless it becomes another one.
fn made_beside(path: &Path, mode: u32) -> Result<NamedTempFile> {
    let permissions = Permissions::from_mode(mode);
    Builder::new().prefix(&prefix(path)?).permissions(permissions).tempfile_in(parent(path))
}

fn replace_file(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut file = made_beside(path, mode)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(parent(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: Result<fs::DirEntry>| entry.expect("read").file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = fs::read_dir(folder).expect("read").map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_dropped_folder_is_gone_and_nothing_else() {
        let root = tempfile::tempdir().expect("a folder");
        for name in ["v1.staging", ".v1.5.staging", ".v1.5.joust-mine"] {
            fs::create_dir(root.path().join(name)).expect("made");
        }
        let before = names(root.path());
        let scratch = Scratch::beside(&root.path().join("v1.5")).expect("made");
        fs::write(scratch.path().join("half"), "x").expect("written");
        assert_eq!(names(root.path()).len(), 4);
        drop(scratch);
        assert_eq!(names(root.path()), before);
    }

    #[test]
    fn a_published_folder_replaces_the_older_one_and_others_may_read_it() {
        let root = tempfile::tempdir().expect("a folder");
        let target = root.path().join("deep/er/model");
        for content in ["one", "two"] {
            let scratch = Scratch::beside(&target).expect("made");
            fs::write(scratch.path().join(content), content).expect("written");
            scratch.publish(&target).expect("published");
            assert_eq!(names(&target), [content]);
            assert_eq!(names(target.parent().expect("a parent")), ["model"], "nothing is left beside it");
        }
        let mode = fs::metadata(&target).expect("there").permissions().mode();
        assert_eq!(mode & 0o700, 0o700);
        let plain = root.path().join("plain");
        fs::create_dir(&plain).expect("made");
        assert_eq!(mode, fs::metadata(plain).expect("there").permissions().mode(), "as any folder");
    }

    #[test]
    fn a_target_that_cannot_be_replaced_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let target = root.path().join("file/under");
        fs::write(root.path().join("file"), "mine").expect("written");
        Scratch::beside(&target).expect_err("its parent is a file");
        check_target(&target).expect_err("its parent is a file");
        check_target(&root.path().join("deep/er/model")).expect("it can be made");
        assert_eq!(names(root.path()), ["file"]);
        assert_eq!(fs::read_to_string(root.path().join("file")).expect("there"), "mine");
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_neighbours() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("run.json");
        fs::write(root.path().join("run.staging"), "mine").expect("written");
        write_atomically(&path, b"one").expect("written");
        write_atomically(&path, b"two").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "two");
        assert_eq!(fs::read_to_string(root.path().join("run.staging")).expect("there"), "mine");
        assert_eq!(names(root.path()), ["run.json", "run.staging"]);
        write_privately(&path, b"three").expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
