//! The run file as a [`ConfigFile`].

use std::path::PathBuf;

use serde_json::Value;

use super::{Preset, RunFile, complete::preset_values};
use crate::{ConfigFile, Error, judge::JudgeConfig, resolve::private::Sealed, works};

impl Sealed for RunFile {}

impl ConfigFile for RunFile {
    const KIND: &'static str = "run file";
    const ENV_PREFIX: &'static str = "JOUST__";
    const OUTSIDE_HASH: &'static [&'static str] = &[
        "name",
        "preset",
        "output",
        "policy.lora.merge",
        "learner.checkpoint_every",
        "learner.keep_checkpoints",
        "learner.diagnose_every",
        // Another number of ranks differs in rounding only, and a run may go on with it.
        "learner.ranks",
        "learner.rank_restarts",
        "learner.min_ranks",
        "learner.rank_timeout_s",
        "learner.activation_checkpointing",
    ];

    fn inputs(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.policy.model];
        paths.extend(self.data.prompts.as_mut());
        paths.extend(self.data.pairs.as_mut());
        paths.extend(self.data.eval_prompts.as_mut());
        paths.extend(self.policy.lora.as_mut().and_then(|lora| lora.init.as_mut()));
        paths.extend(self.judge.iter_mut().filter_map(JudgeConfig::model_mut));
        paths
    }

    fn preset(written: &dyn Fn(&str) -> Option<Value>) -> Option<(String, Vec<(&'static str, Value)>)> {
        let preset: Preset = serde_json::from_value(written("preset")?).ok()?;
        let values = preset_values(preset, written);
        Some((works::name_of(&preset), values))
    }

    fn complete(&mut self, written: &dyn Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
        self.fill_derived(written)
    }

    fn problems(&self, place: &dyn Fn(&str) -> String) -> Vec<Error> {
        self.find_problems(place)
    }
}
