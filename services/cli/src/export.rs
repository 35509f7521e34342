//! Trained weights as folders: whole models, adapters, or adapters merged into their base.

use std::path::{Path, PathBuf};

use joust_config::RunFile;
use joust_model::{Adapter, LoraConfig, ModelConfig, Weights, load, publish_adapter, publish_folder};
use tch::Tensor;

use crate::{device, model::LanguageModel};

/// What is written of a run's trained weights.
pub struct Export {
    config: ModelConfig,
    /// Folder whose tokenizer files go with every policy.
    words: PathBuf,
    /// Folder of the base, and shape of the adapter that is trained on it.
    lora: Option<(PathBuf, LoraConfig)>,
    merge: bool,
}

impl Export {
    /// Exports as the run file says.
    pub fn new(run: &RunFile, model: &LanguageModel) -> Self {
        let lora = model.adapter.as_ref().map(|adapter| (model.folder.clone(), adapter.config.clone()));
        let merge = run.policy.lora.as_ref().is_some_and(|lora| lora.merge);
        Self { config: model.config.clone(), words: model.words.clone(), lora, merge }
    }

    /// Merges an adapter into its base whatever the run file says.
    pub fn merging(self) -> Self {
        Self { merge: true, ..self }
    }

    /// Writes what was trained, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written, or a base that cannot be read again.
    pub fn publish(&self, folder: &Path, trained: &Weights) -> joust_model::Result<()> {
        let Some((base, config)) = &self.lora else {
            return publish_folder(folder, &self.words, &self.config, trained);
        };
        let weights =
            Weights(trained.0.iter().map(|(name, tensor)| (name.clone(), Tensor::shallow_clone(tensor))).collect());
        let adapter = Adapter { config: config.clone(), weights };
        if !self.merge {
            return publish_adapter(folder, base, &adapter);
        }
        // Read again, so that a run need not hold the base a third time.
        let (_, weights) = load(base)?;
        let merged = adapter.merged(&weights.to_device(device::torch()).to_kind(self.config.dtype.kind()))?;
        publish_folder(folder, &self.words, &self.config, &merged)
    }
}
