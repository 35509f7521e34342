//! One run as the coordinator knows it.

use joust_core::{ModelSet, Progress, Release, RunId};
use joust_proto::{Failure, Reason};
use serde::{Deserialize, Serialize};

use super::WorkerProgress;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunState {
    /// It waits for a learner.
    Pending,
    /// It trains.
    Running,
    /// It releases no prompts until it is resumed.
    Paused,
    /// It finishes the step under way.
    Draining,
    /// It ended with its result.
    Done,
    /// It ended without one.
    Failed,
}

impl RunState {
    /// Returns the word that users read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With its result; why then.
    Done(String),
    /// Without; why.
    Failed(String),
}

/// A run to make, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its name.
    pub id: RunId,
    /// The resolved run file, TOML, with absolute paths.
    pub toml: String,
    /// BLAKE3 of the resolved run file.
    pub hash: String,
    /// When prompts may be put.
    pub release: Release,
    /// Memory that its models take in a rollout worker, in bytes.
    pub model_bytes: u64,
    /// Whether steps are called for by hand.
    pub by_hand: bool,
    /// Names the call that makes it.
    pub key: String,
    /// The run that it goes on from.
    pub forked_from: Option<RunId>,
}

/// Other settings of a run, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSettings {
    /// The run file that they were made from.
    pub from: String,
    /// The resolved run file, TOML, with absolute paths.
    pub toml: String,
    /// BLAKE3 of the resolved run file.
    pub hash: String,
    /// Steps of the run.
    pub steps: u64,
}

/// The learner of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its name.
    pub worker: String,
    /// Names the start of its process.
    pub start: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
    /// The resolved run file, TOML, with absolute paths.
    pub toml: String,
    /// BLAKE3 of the resolved run file.
    pub hash: String,
    /// Prompts of a step.
    pub prompts_per_step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Largest staleness in policy versions.
    pub max_staleness: u64,
    /// Steps between publishes.
    pub iteration_steps: u64,
    /// Memory that its models take in a rollout worker, in bytes.
    pub model_bytes: u64,
    /// Whether steps are called for by hand.
    pub by_hand: bool,
    /// Names the call that made it.
    pub key: String,
    /// The run that it went on from.
    pub forked_from: Option<RunId>,
    /// Whether a user holds its prompts back.
    pub paused: bool,
    /// Whether a user wants it to end.
    pub stopping: bool,
    /// The learner that trains it.
    pub learner: Option<Holder>,
    /// Times that a learner took it.
    pub generation: u64,
    /// Optimizer steps that are done.
    pub steps_done: u64,
    /// First step with the settings of now, once a learner has said so.
    #[serde(default)]
    pub settings_since: Option<u64>,
    /// How far its learner is; `None` until the learner of now has recovered what the one before left.
    #[serde(skip)]
    pub progress: Option<Progress>,
    /// What is published.
    pub models: Option<ModelSet>,
    /// How it ended.
    pub end: Option<End>,
}

impl Run {
    pub(super) fn new(new: NewRun, now_ms: u64) -> Self {
        Self {
            id: new.id,
            created_ms: now_ms,
            toml: new.toml,
            hash: new.hash,
            prompts_per_step: new.release.prompts_per_step,
            steps: new.release.steps,
            max_staleness: new.release.max_staleness,
            iteration_steps: new.release.iteration_steps,
            model_bytes: new.model_bytes,
            by_hand: new.by_hand,
            key: new.key,
            forked_from: new.forked_from,
            paused: false,
            stopping: false,
            learner: None,
            generation: 0,
            steps_done: 0,
            settings_since: Some(0),
            progress: None,
            models: None,
            end: None,
        }
    }

    /// Returns where it is.
    pub fn state(&self) -> RunState {
        match &self.end {
            Some(End::Done(_)) => RunState::Done,
            Some(End::Failed(_)) => RunState::Failed,
            None if self.learner.is_none() => RunState::Pending,
            None if self.stopping => RunState::Draining,
            None if self.paused => RunState::Paused,
            None => RunState::Running,
        }
    }

    /// Returns why it is there, for people.
    pub fn reason(&self) -> String {
        match &self.end {
            Some(End::Done(reason) | End::Failed(reason)) => reason.clone(),
            None if self.learner.is_none() && self.generation > 0 => {
                "its learner is gone; waiting for a free one".into()
            }
            None if self.learner.is_none() => "waiting for a free learner".into(),
            None => String::new(),
        }
    }

    /// Checks that it has not ended.
    ///
    /// # Errors
    /// A [`Failure`] with its state if it has.
    pub fn check_open(&self) -> Result<(), Failure> {
        if self.end.is_none() {
            return Ok(());
        }
        let (id, state) = (&self.id, self.state().name());
        let text = format!("run {id} is {state}; only a run that has not ended can be changed");
        Err(Failure::new(Reason::WrongState, text).with("state", state))
    }

    /// Returns the first position that cannot have been put yet, and the number of positions.
    ///
    /// # Errors
    /// A [`Failure`] if prompts are not put by position, or if it went on from a checkpoint and its learner has not said yet from which.
    pub fn places(&self) -> Result<(u64, u64), Failure> {
        let id = &self.id;
        if self.by_hand {
            let text = format!("run {id} is trained by hand: ask a rollout worker for answers, and put the examples");
            return Err(Failure::new(Reason::WrongState, text));
        }
        if self.progress.is_none() && self.forked_from.is_some() && self.steps_done == 0 {
            return Err(Failure::new(Reason::NotReady, format!("run {id} has not begun; ask again when it has")));
        }
        let version = self.steps_done / self.iteration_steps.max(1);
        let known = Progress { steps_done: self.steps_done, version };
        let release = self.release();
        Ok((release.allowed(self.progress.unwrap_or(known)), release.total_positions()))
    }

    /// Returns when its prompts may be put.
    pub fn release(&self) -> Release {
        Release {
            prompts_per_step: self.prompts_per_step,
            steps: self.steps,
            max_staleness: self.max_staleness,
            iteration_steps: self.iteration_steps,
        }
    }

    /// Returns how far its prompts may be released by; `None` while they are held back.
    pub fn releases(&self) -> Option<Progress> {
        self.progress.filter(|_| self.state() == RunState::Running && !self.by_hand)
    }

    /// Returns whether this learner trains it.
    pub fn is_held_by(&self, worker: &str) -> bool {
        self.end.is_none() && self.learner.as_ref().is_some_and(|learner| learner.worker == worker)
    }

    /// Gives it to a learner, or takes it away; the next one recovers what the one before left.
    pub(super) fn hand_to(&mut self, learner: Option<Holder>) {
        self.generation += u64::from(learner.is_some());
        self.learner = learner;
        self.progress = None;
    }

    /// Gives it other settings: its learner begins anew with them, behind the step under way.
    pub(super) fn change(&mut self, settings: NewSettings) {
        let NewSettings { toml, hash, steps, .. } = settings;
        if toml == self.toml {
            return;
        }
        (self.toml, self.hash, self.steps) = (toml, hash, steps);
        self.settings_since = None;
        if let Some(learner) = self.learner.clone() {
            self.hand_to(Some(learner));
        }
    }

    /// Enters what its learner says.
    pub(super) fn advance(&mut self, told: &WorkerProgress) {
        if self.end.is_some() || told.generation != self.generation {
            return;
        }
        if let Some(restored) = told.restored_steps {
            self.settings_since.get_or_insert(restored);
        }
        if told.recovered {
            self.progress = Some(Progress { steps_done: told.steps_done, version: told.version });
            self.steps_done = told.steps_done;
        }
        if !told.failed.is_empty() {
            self.end = Some(End::Failed(told.failed.clone()));
        } else if !told.ended.is_empty() {
            self.end = Some(End::Done(told.ended.clone()));
        }
    }
}
