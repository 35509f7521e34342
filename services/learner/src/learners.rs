//! Who trains: a thread of this process, or ranks that are processes of their own.

use std::{fs, path::PathBuf};

use joust_core::Example;
use joust_model::Weights;
use joust_train::{StepMetrics, Written};
use tch::Tensor;

use crate::{
    Error, Result,
    group::{Group, RankProcesses},
    ledger::State,
    rank::{Command, Kept, Rank, Reply},
    worker::Worker,
};

/// How the learner trains.
pub enum Learners {
    /// On a thread of this process; it takes the rank when it starts.
    Thread(Option<Box<Rank>>),
    /// On processes of their own, which are started again when one is lost.
    Processes(RankProcesses),
}

impl Learners {
    /// Starts them, for the first time or after they were lost.
    pub(crate) fn start(&mut self, incarnation: u64) -> Result<Running> {
        match self {
            Self::Thread(rank) => {
                let rank = rank.take().ok_or_else(|| Error::Worker("it was started already".into()))?;
                Ok(Running::Thread(Worker::start("joust-trainer", *rank)?))
            }
            Self::Processes(processes) => {
                let group = Box::new(Group::start(processes, incarnation)?);
                Ok(Running::Processes { group, scratch: processes.scratch.clone(), device: processes.device })
            }
        }
    }

    /// Goes on with a rank less, because so many cannot be started; false where none can be spared.
    pub(crate) fn shrink(&mut self) -> bool {
        match self {
            Self::Processes(processes) if processes.size > processes.least => {
                processes.size -= 1;
                true
            }
            _ => false,
        }
    }

    /// Returns how often they are started again.
    pub(crate) fn restarts(&self) -> u64 {
        match self {
            Self::Thread(_) => 0,
            Self::Processes(processes) => processes.restarts,
        }
    }
}

/// Who trains now.
pub(crate) enum Running {
    Thread(Worker<Rank>),
    Processes { group: Box<Group>, scratch: PathBuf, device: tch::Device },
}

impl Running {
    /// Tells all ranks to do something, and returns what the first one says.
    async fn ask(&mut self, command: Command) -> Result<Reply> {
        match self {
            Self::Thread(worker) => worker.call(move |rank| rank.handle(command)).await?,
            Self::Processes { group, .. } => group.ask(|_| command.clone()).await,
        }
    }

    /// Reads the newest whole checkpoint.
    pub(crate) async fn restore(&mut self, root: PathBuf) -> Result<(Option<State>, Vec<String>)> {
        match self.ask(Command::Restore { root }).await? {
            Reply::Restored { state, damaged } => Ok((state.map(|state| *state), damaged)),
            other => Err(unexpected(&other)),
        }
    }

    /// Trains on the micro-batches of a step; several ranks share them evenly.
    pub(crate) async fn step(
        &mut self,
        batches: Vec<Vec<Example>>,
        (epochs, diagnose): (u64, bool),
    ) -> Result<StepMetrics> {
        let reply = match self {
            Self::Thread(_) => self.ask(Command::Step { batches, epochs, diagnose }).await?,
            Self::Processes { group, .. } => {
                let size = batches.iter().map(Vec::len).max().unwrap_or(1).max(1);
                let all: Vec<Example> = batches.into_iter().flatten().collect();
                let ranks = group.size();
                let share = |rank: usize| {
                    let own = &all[all.len() * rank / ranks..all.len() * (rank + 1) / ranks];
                    let batches = own.chunks(size).map(<[Example]>::to_vec).collect();
                    Command::Step { batches, epochs, diagnose }
                };
                group.ask(share).await?
            }
        };
        match reply {
            Reply::Trained(metrics) => Ok(metrics),
            other => Err(unexpected(&other)),
        }
    }

    /// Moves what moves when the policy is published.
    pub(crate) async fn publish(&mut self, resumed: bool) -> Result<()> {
        self.ask(Command::Publish { resumed }).await.map(drop)
    }

    /// Begins to write all parts of a checkpoint into a folder; training goes on meanwhile.
    pub(crate) async fn begin_checkpoint(&mut self, staging: PathBuf) -> Result<()> {
        self.ask(Command::Checkpoint { staging }).await.map(drop)
    }

    /// Waits until what was begun is on disk.
    pub(crate) async fn end_checkpoint(&mut self) -> Result<Written> {
        match self.ask(Command::Written).await? {
            Reply::Written(written) => Ok(written),
            other => Err(unexpected(&other)),
        }
    }

    /// Copies weights, as float32 if `whole`, else in the kind that the model computes in.
    pub(crate) async fn weights(&mut self, which: Kept, whole: bool) -> Result<Option<Weights>> {
        let (group, path, device) = match self {
            Self::Thread(worker) => return worker.call(move |rank| rank.weights(which, whole)).await?,
            Self::Processes { group, scratch, device } => (group, scratch.clone(), *device),
        };
        let reply = group.ask(|_| Command::Save { which, whole, path: path.clone() }).await?;
        if matches!(reply, Reply::Absent) {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let tensors = Tensor::read_safetensors(&path).map_err(|error| Error::Worker(error.to_string()))?;
            // Only a copy for this process.
            let _ = fs::remove_file(&path);
            Ok(Weights(tensors.into_iter().collect()).to_device(device))
        });
        read.await.map_err(|error| Error::Worker(error.to_string()))?.map(Some)
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Worker(format!("it answered {reply:?}, which was not asked"))
}
