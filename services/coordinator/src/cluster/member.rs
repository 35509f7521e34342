//! Workers and their leases.

use std::collections::BTreeMap;

use joust_core::RunId;

use super::Holder;

/// How long a lease holds without a heartbeat, in milliseconds.
pub const LEASE_MS: u64 = 5_000;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Answers prompts.
    Rollout,
    /// Judges answers.
    Judge,
    /// Trains.
    Learner,
}

/// A worker that wants to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its stable name.
    pub worker: String,
    /// What it does.
    pub role: Role,
    /// Where it is reached, a URL.
    pub address: String,
    /// Memory that models may take, in bytes; 0 does not bound it.
    pub budget_bytes: u64,
    /// Names this start of its process.
    pub start: String,
}

/// How far a worker is with a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerProgress {
    /// Generation of the run that it works for.
    pub generation: u64,
    /// Whether a learner has recovered what the one before left.
    pub recovered: bool,
    /// Optimizer steps of the checkpoint that a learner began from.
    pub restored_steps: Option<u64>,
    /// Policy version that it uses.
    pub version: u64,
    /// Optimizer steps that are done.
    pub steps_done: u64,
    /// Why a learner ended the run; empty while it trains.
    pub ended: String,
    /// Why a learner cannot train it; empty while it can.
    pub failed: String,
}

/// A worker whose lease holds, or a learner that is awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its stable name.
    pub worker: String,
    /// What it does.
    pub role: Role,
    /// Where it is reached.
    pub address: String,
    /// Memory that models may take, in bytes; 0 does not bound it.
    pub budget_bytes: u64,
    /// Names this start of its process.
    pub start: String,
    /// Its lease; 0 for one that is only awaited.
    pub lease: u64,
    /// When the lease is over, in milliseconds since the epoch.
    pub expires_ms: u64,
    /// Whether it takes no more work.
    pub draining: bool,
    /// How far it is.
    pub progress: BTreeMap<RunId, WorkerProgress>,
}

impl Member {
    pub(super) fn new(registration: Registration, lease: u64, now_ms: u64) -> Self {
        let Registration { worker, role, address, budget_bytes, start } = registration;
        let expires_ms = now_ms + LEASE_MS;
        Self {
            worker,
            role,
            address,
            budget_bytes,
            start,
            lease,
            expires_ms,
            draining: false,
            progress: BTreeMap::new(),
        }
    }

    /// A learner that an earlier start of the coordinator knew: it keeps its run for a lease's time.
    pub(super) fn awaited(Holder { worker, start }: Holder, now_ms: u64) -> Self {
        let (role, address) = (Role::Learner, String::new());
        Self::new(Registration { worker, role, address, budget_bytes: 0, start }, 0, now_ms)
    }
}

/// A run that a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The run.
    pub run: RunId,
    /// The resolved run file, TOML.
    pub toml: String,
    /// BLAKE3 of the resolved run file.
    pub hash: String,
    /// Where its learner is reached; empty while it is not known.
    pub learner_address: String,
    /// Generation of the run.
    pub generation: u64,
    /// Whether steps are called for by hand.
    pub by_hand: bool,
    /// Whether its learner ends after the step under way.
    pub stopping: bool,
    /// Optimizer steps of the run.
    pub steps: u64,
}
