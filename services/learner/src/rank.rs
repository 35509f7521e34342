//! What one rank of the learner does when it is told: restore, train, publish, checkpoint.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use joust_core::{Example, failpoint};
use joust_model::{Llama, Weights};
use joust_train::{Restored, StepMetrics, Trainer, Written};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{Error, Reference, Result, ledger::State};

/// A trainer with what it holds the policy to.
#[derive(Debug)]
pub struct Rank {
    trainer: Trainer,
    /// `None` where the policy is held to nothing.
    reference: Option<Llama>,
    kind: Reference,
}

/// Which of the weights that the trainer keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// The policy.
    Policy,
    /// Its average.
    Average,
    /// The policy of one publish ago.
    Past,
}

/// What every rank of a group does at the same time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Reads the newest whole checkpoint under a folder.
    Restore { root: PathBuf },
    /// Prepares examples once and passes over them.
    Step { batches: Vec<Vec<Example>>, epochs: u64, diagnose: bool },
    /// Moves the past policy and the reference, because the policy is published now; `resumed` publishes again what was.
    Publish { resumed: bool },
    /// Begins to write its part of a checkpoint into a folder.
    Checkpoint { staging: PathBuf },
    /// Waits until what was begun is on disk.
    Written,
    /// Writes weights to a file, as float32 or in the kind that the model computes in; of several ranks the first does.
    Save { which: Kept, whole: bool, path: PathBuf },
}

/// What came of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The state of the checkpoint, where there was one, and what was wrong with newer ones.
    Restored { state: Option<Box<State>>, damaged: Vec<String> },
    /// What the last pass over the examples told.
    Trained(StepMetrics),
    /// The parts of all ranks.
    Written(Written),
    /// It is done.
    Done,
    /// The trainer keeps no such weights.
    Absent,
}

impl Rank {
    /// Holds the policy of `trainer` to `reference`, which moves as `kind` says.
    pub fn new(trainer: Trainer, reference: Llama, kind: Reference) -> Self {
        Self { trainer, reference: (kind != Reference::None).then_some(reference), kind }
    }

    /// Does what it is told.
    pub(crate) fn handle(&mut self, command: Command) -> Result<Reply> {
        match command {
            Command::Restore { root } => self.restore(&root),
            Command::Step { batches, epochs, diagnose } => self.step(batches, epochs, diagnose).map(Reply::Trained),
            Command::Publish { resumed } => self.publish(resumed),
            Command::Checkpoint { staging } => {
                self.trainer.begin_checkpoint(&staging)?;
                Ok(Reply::Done)
            }
            Command::Written => Ok(Reply::Written(self.trainer.end_checkpoint()?)),
            Command::Save { which, whole, path } => self.save(which, whole, &path),
        }
    }

    fn restore(&mut self, root: &Path) -> Result<Reply> {
        let Restored { found, damaged } = self.trainer.restore::<State>(root)?;
        let damaged = damaged.iter().map(ToString::to_string).collect();
        Ok(Reply::Restored { state: found.map(|(_, state)| Box::new(state)), damaged })
    }

    fn step(&mut self, batches: Vec<Vec<Example>>, epochs: u64, diagnose: bool) -> Result<StepMetrics> {
        let count = |batches: &[Vec<_>]| batches.iter().map(Vec::len).sum::<usize>();
        let examples: usize = batches.iter().map(Vec::len).sum();
        failpoint::pass("rank_before_step");
        let began = Instant::now();
        let prepared = self.trainer.prepare(self.reference.as_ref(), batches)?;
        let prepare_s = began.elapsed().as_secs_f64();
        let measured = if diagnose { self.trainer.diagnose(&prepared)? } else { StepMetrics::new() };
        let diagnose_s = began.elapsed().as_secs_f64() - prepare_s;
        let mut metrics = StepMetrics::new();
        let mut skipped = 0.0;
        for _ in 0..epochs {
            metrics = self.trainer.step(&prepared)?;
            skipped += metrics.get("steps/skipped").copied().unwrap_or_default();
        }
        metrics.extend(measured);
        metrics.insert("steps/skipped".into(), skipped);
        metrics.extend(self.trainer.phases.clone());
        metrics.insert("time/prepare_s".into(), prepare_s);
        metrics.insert("time/diagnose_s".into(), diagnose_s);
        metrics.extend(self.trainer.throughput(&prepared, epochs, began.elapsed())?);
        if self.trainer.keep.is_some() {
            let filtered = self.trainer.ranks().sum((examples - count(&prepared)) as f64)?;
            metrics.insert("pairs/filtered".into(), filtered);
        }
        failpoint::pass("rank_after_step");
        Ok(metrics)
    }

    fn publish(&mut self, resumed: bool) -> Result<Reply> {
        let master = &mut self.trainer.master;
        if let Some(past) = &mut master.past {
            if resumed { past.resume(&master.weights) } else { past.publish(&master.weights) }
        }
        let kept = match (self.kind, &master.average) {
            (Reference::Initial | Reference::None, _) => return Ok(Reply::Done),
            (Reference::Average, Some(_)) => Kept::Average,
            (Reference::Average | Reference::Previous, _) => Kept::Policy,
        };
        let weights = self.weights(kept, false)?.ok_or_else(|| Error::Worker("it has no policy".into()))?;
        self.reference = Some(self.trainer.master.model_of(weights)?);
        Ok(Reply::Done)
    }

    /// Copies whole weights, as float32 if `whole`, else in the kind that the model computes in; `None` if the trainer keeps none of these.
    /// All ranks call it.
    pub(crate) fn weights(&self, which: Kept, whole: bool) -> Result<Option<Weights>> {
        let master = &self.trainer.master;
        let own = match which {
            Kept::Policy if !whole => return Ok(Some(master.computed())),
            Kept::Policy => Some(&master.weights),
            Kept::Average => master.average.as_ref().map(|average| &average.weights),
            Kept::Past => master.past.as_ref().map(|past| &past.weights),
        };
        let kind = if whole { Kind::Float } else { master.config.dtype.kind() };
        Ok(own.map(|own| master.whole(own)).transpose()?.map(|weights| weights.to_kind(kind)))
    }

    fn save(&self, which: Kept, whole: bool, path: &Path) -> Result<Reply> {
        let Some(weights) = self.weights(which, whole)? else { return Ok(Reply::Absent) };
        if self.trainer.ranks().rank() > 0 {
            return Ok(Reply::Done);
        }
        let tensors: Vec<(&str, &Tensor)> = weights.0.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        Tensor::write_safetensors(&tensors, path).map_err(|error| Error::Worker(error.to_string()))?;
        Ok(Reply::Done)
    }
}
