//! Where submitted runs may read: below the roots of the deployment, whatever a path or a link says.

use std::path::{Path, PathBuf};

use joust_proto::Error;

/// Folders below which all paths must lie.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roots(Vec<PathBuf>);

impl Roots {
    /// Takes folders; one that is not there allows nothing, and is logged.
    pub(crate) fn new(folders: &[PathBuf]) -> Self {
        let real = |folder: &PathBuf| {
            let found = folder.canonicalize();
            found.inspect_err(|error| tracing::warn!(folder = %folder.display(), %error, "a root allows nothing")).ok()
        };
        Self(folders.iter().filter_map(real).collect())
    }

    /// Returns the real path of what is named, relative to the first root if it is relative.
    ///
    /// # Errors
    /// [`Error`] for a path that is not there, or lies elsewhere; both say the same, so that nobody learns what lies elsewhere.
    pub(crate) fn find(&self, field: &str, path: &Path) -> Result<PathBuf, Error> {
        let first = self.0.first().map(PathBuf::as_path).unwrap_or(Path::new("/"));
        let real = first.join(path).canonicalize().ok();
        real.filter(|real| self.0.iter().any(|root| real.starts_with(root))).ok_or_else(|| {
            let roots: Vec<String> = self.0.iter().map(|root| root.display().to_string()).collect();
            let wanted = match roots.is_empty() {
                true => "nothing: the deployment file names no folders.roots".into(),
                false => format!("something that is there, below {}", roots.join(" or ")),
            };
            Error::value(field, path.display(), wanted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_found_by_any_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        std::fs::create_dir_all(root.join("models/a")).expect("made");
        std::fs::create_dir_all(&outside).expect("made");
        std::os::unix::fs::symlink(&outside, root.join("link")).expect("made");
        let roots = Roots::new(std::slice::from_ref(&root));
        let real = root.canonicalize().expect("there");
        assert_eq!(roots.find("f", Path::new("models/a")), Ok(real.join("models/a")));
        assert_eq!(roots.find("f", &root.join("models/../models/a")), Ok(real.join("models/a")));
        for bad in ["../outside", "link", "missing", "/etc/passwd", "models/../../outside"] {
            let error = roots.find("policy.model", Path::new(bad)).expect_err(bad).to_string();
            assert!(error.starts_with("field policy.model is ") && error.contains("below"), "{error}");
        }
        assert!(Roots::new(&[]).find("f", Path::new("/")).is_err());
    }
}
