//! What a preset brings and what follows from other keys.

use std::path::PathBuf;

use joust_core::Player;
use serde_json::{Value, json};

use super::{Ask, Label, LossName, Preset, ReferenceKind, RunFile, Select};
use crate::works::name_of;

/// Steps of an iteration of the presets that are held to the iteration before. Their papers train three iterations, each on its
/// own third of the prompts: that is a third of learner.steps.
const ITERATION_STEPS: u64 = 8;

/// Lists the keys that a preset sets, given what the user wrote.
///
/// A key is left out where the user's own choice makes it meaningless: a preset's beta belongs to the preset's loss.
pub(crate) fn preset_values(preset: Preset, written: &dyn Fn(&str) -> Option<Value>) -> Vec<(&'static str, Value)> {
    let point = Point::of(preset);
    let mut values = vec![
        ("feedback.ask", json!(point.ask)),
        ("feedback.label", json!(point.label)),
        ("pairing.select", json!(point.select)),
        ("pairing.filters", json!(["ties", "identical"])),
        ("loss.name", json!(point.loss)),
        ("reference.kind", json!(point.reference)),
    ];
    if written("sampling.num_generations").is_none() {
        values.push(("sampling.players", json!(point.players)));
    }
    if written("loss.name").is_none_or(|name| name == json!(name_of(&point.loss))) {
        values.push(("loss.beta", json!(point.beta)));
    }
    match preset {
        Preset::Ppo => values.push(("learner.epochs_per_iteration", json!(4))),
        Preset::Sppo | Preset::IterativeDpo => values.push(("learner.iteration_steps", json!(ITERATION_STEPS))),
        _ => {}
    }
    values
}

/// The five choices that a preset stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Who gives each of a prompt's answers.
    pub players: &'static [Player],
    /// What the judge is asked.
    pub ask: Ask,
    /// What becomes of a probability.
    pub label: Label,
    /// Which answers are contrasted.
    pub select: Select,
    /// What is minimised.
    pub loss: LossName,
    /// The loss's beta.
    pub beta: f64,
    /// What the policy is held to.
    pub reference: ReferenceKind,
}

impl Point {
    /// Returns the choices of a preset.
    pub fn of(preset: Preset) -> Self {
        let oaif = |loss, beta| Self {
            players: &[Player::Policy; 2],
            ask: Ask::Compare,
            label: Label::Hard,
            select: Select::BestWorst,
            loss,
            beta,
            reference: ReferenceKind::Initial,
        };
        let nash =
            |players| Self { players, label: Label::Soft, select: Select::Opponent, ..oaif(LossName::NashMd, 0.008) };
        let scored = |players, loss, beta| Self {
            players,
            ask: Ask::Score,
            label: Label::Soft,
            select: Select::Single,
            ..oaif(loss, beta)
        };
        match preset {
            Preset::OaifDpo => oaif(LossName::Dpo, 0.1),
            Preset::OaifIpo => oaif(LossName::Ipo, 1.0),
            Preset::OaifSlic => oaif(LossName::Hinge, 0.002),
            Preset::Sppo => Self {
                players: &[Player::Policy; 5],
                ask: Ask::Rank,
                label: Label::Soft,
                select: Select::WinRate,
                reference: ReferenceKind::Previous,
                ..oaif(LossName::Sppo, 1e-3)
            },
            Preset::NashMd => nash(&[Player::Policy, Player::Mixture]),
            Preset::NashEma => nash(&[Player::Policy, Player::Ema]),
            Preset::IpoMd => Self { players: &[Player::Mixture; 2], label: Label::Soft, ..oaif(LossName::Ipo, 0.1) },
            Preset::Xpo => Self { players: &[Player::Policy, Player::Reference], ..oaif(LossName::Xpo, 0.1) },
            Preset::IterativeDpo => Self {
                players: &[Player::Policy; 8],
                ask: Ask::Score,
                reference: ReferenceKind::Previous,
                ..oaif(LossName::Dpo, 0.1)
            },
            Preset::Ppo => scored(&[Player::Policy; 4], LossName::Ppo, 0.05),
            Preset::Rloo => scored(&[Player::Policy; 4], LossName::Rloo, 0.05),
            Preset::Grpo => scored(&[Player::Policy; 8], LossName::Grpo, 0.04),
            Preset::ReinforcePlusPlus => scored(&[Player::Policy; 4], LossName::ReinforcePlusPlus, 0.01),
        }
    }
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
        if self.reference.kind == ReferenceKind::Previous && !written("pipeline.max_staleness") {
            self.pipeline.max_staleness = 0;
            derived.push(("pipeline.max_staleness", "reference.kind"));
        }
        if self.loss.name == LossName::Bonbon && !self.loss.params.contains_key("n") {
            self.loss.params.insert("n".to_owned(), f64::from(self.sampling.num_generations));
            derived.push(("loss.n", "sampling.num_generations"));
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
