//! Errors of model folders and shapes.

use std::path::PathBuf;

/// What can go wrong between a model folder and a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that the model needs is not there.
    #[error(
        "model folder {folder} lacks {file}; a Hugging Face folder needs config.json, tokenizer.json and *.safetensors"
    )]
    MissingFile {
        /// The model folder.
        folder: PathBuf,
        /// The file that was looked for.
        file: String,
    },
    /// A file cannot be read or written.
    #[error("failed to {action} {path}: {source}")]
    Io {
        /// What was tried: read, write, create, rename.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// `config.json` holds a value that this build cannot run.
    #[error("{path}: {key} is {value}, {expected}")]
    Config {
        /// The config file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A safetensors file is cut or is not one.
    #[error("{path} is not a whole safetensors file ({reason}); copy or download it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A tensor is missing, unknown, or of another shape than the config says.
    #[error("{path}: tensor {name}: {problem}")]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// Key of the tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A LoRA target that is no projection of the model.
    #[error(
        "LoRA target {target:?} matches no module of the model; its modules end in {known}, and \"all-linear\" is all of them"
    )]
    Targets {
        /// The target.
        target: String,
        /// What the names of modules end in.
        known: String,
    },
    /// The C++ border refused.
    #[error(transparent)]
    Border(#[from] joust_torch::Error),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an I/O error with what was tried on which path.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
