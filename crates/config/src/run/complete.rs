//! What a preset brings and what follows from other keys.

use std::path::PathBuf;

use joust_core::Player;
use serde_json::{Value, json};

use super::{LossName, Preset, RunFile};
use crate::works::name_of;

/// Lists the keys that a preset sets, given what the user wrote.
///
/// A key is left out where the user's own choice makes it meaningless: a preset's beta belongs to the preset's loss.
pub(crate) fn preset_values(preset: Preset, written: &dyn Fn(&str) -> Option<Value>) -> Vec<(&'static str, Value)> {
    let (loss, beta) = match preset {
        Preset::OaifDpo => (LossName::Dpo, 0.1),
        Preset::OaifIpo => (LossName::Ipo, 1.0),
        Preset::OaifSlic => (LossName::Hinge, 0.002),
        // The others are refused before they are expanded.
        _ => return Vec::new(),
    };
    let mut values = vec![
        ("feedback.ask", json!("compare")),
        ("feedback.label", json!("hard")),
        ("pairing.select", json!("best_worst")),
        ("pairing.filters", json!(["ties", "identical"])),
        ("loss.name", json!(loss)),
        ("reference.kind", json!("initial")),
    ];
    if written("sampling.num_generations").is_none() {
        values.push(("sampling.players", json!(["policy", "policy"])));
    }
    if written("loss.name").is_none_or(|name| name == json!(name_of(&loss))) {
        values.push(("loss.beta", json!(beta)));
    }
    values
}

impl RunFile {
    /// Fills what follows from other keys; returns each filled key with the key that it follows from.
    pub(crate) fn fill_derived(&mut self, written: &dyn Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
        let mut derived = Vec::new();
        self.complete_players(written, &mut derived);
        if self.feedback.judge.is_empty()
            && let [only] = self.judge.as_slice()
        {
            self.feedback.judge = only.name().to_owned();
            derived.push(("feedback.judge", "judge"));
        }
        if self.eval.judge.is_empty() {
            self.eval.judge = self.feedback.judge.clone();
            derived.push(("eval.judge", "feedback.judge"));
        }
        if self.data.eval_prompts.is_some() && !written("data.eval_fraction") {
            self.data.eval_fraction = 0.0;
            derived.push(("data.eval_fraction", "data.eval_prompts"));
        }
        if self.deterministic && !written("pipeline.max_staleness") {
            self.pipeline.max_staleness = 0;
            derived.push(("pipeline.max_staleness", "deterministic"));
        }
        if self.deterministic && self.learner.optim.threads == 0 {
            self.learner.optim.threads = 1;
            derived.push(("learner.threads", "deterministic"));
        }
        if self.output.dir.as_os_str().is_empty() {
            self.output.dir = PathBuf::from("runs").join(self.name.as_str());
            derived.push(("output.dir", "name"));
        }
        self.loss.fill();
        derived
    }

    /// Makes `players` and `num_generations` agree where only one is written, or where one player gives every answer.
    fn complete_players(&mut self, written: &dyn Fn(&str) -> bool, derived: &mut Vec<(&'static str, &'static str)>) {
        let sampling = &mut self.sampling;
        match (written("sampling.players"), written("sampling.num_generations")) {
            (false, false) => {}
            (true, false) => {
                sampling.num_generations = sampling.players.len() as u32;
                derived.push(("sampling.num_generations", "sampling.players"));
            }
            (false, true) => {
                sampling.players = vec![Player::Policy; sampling.num_generations as usize];
                derived.push(("sampling.players", "sampling.num_generations"));
            }
            (true, true) => {
                if let [only] = *sampling.players {
                    sampling.players = vec![only; sampling.num_generations as usize];
                }
            }
        }
    }
}
