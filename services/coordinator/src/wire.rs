//! Between the wire and what the coordinator knows.

use std::collections::BTreeMap;

use joust_core::{ModelSet, RunId};
use joust_proto::{
    Error, Result,
    coordinator::v1 as wire,
    parse::{counted, name, optional, run_id},
};
use prost_types::{Duration, Timestamp};

use crate::{
    Told, What,
    cluster::{Assignment, LEASE_MS, Member, Registration, Role, Run, RunState, WorkerProgress},
};

/// Longest address of a worker, in bytes.
const MAX_ADDRESS_BYTES: usize = 512;

/// Returns a moment.
pub(crate) fn moment(ms: u64) -> Timestamp {
    Timestamp { seconds: (ms / 1000) as i64, nanos: (ms % 1000) as i32 * 1_000_000 }
}

/// Returns how long a lease holds, and how often a worker says that it lives.
pub(crate) fn lease_times() -> (Duration, Duration) {
    let of = |ms: u64| Duration { seconds: (ms / 1000) as i64, nanos: (ms % 1000) as i32 * 1_000_000 };
    (of(LEASE_MS), of(LEASE_MS / 5))
}

pub(crate) fn state(state: RunState) -> wire::RunState {
    match state {
        RunState::Pending => wire::RunState::Pending,
        RunState::Running => wire::RunState::Running,
        RunState::Paused => wire::RunState::Paused,
        RunState::Draining => wire::RunState::Draining,
        RunState::Done => wire::RunState::Done,
        RunState::Failed => wire::RunState::Failed,
    }
}

/// Says a run; its file where `whole`.
pub(crate) fn run(run: &Run, whole: bool) -> wire::Run {
    wire::Run {
        run_id: run.id.to_string(),
        state: state(run.state()).into(),
        reason: run.reason(),
        created_at: Some(moment(run.created_ms)),
        steps_done: run.steps_done,
        steps: run.steps,
        models: run.models.clone().map(Into::into),
        settings_hash: run.hash.clone(),
        resolved_toml: if whole { run.toml.clone() } else { String::new() },
        forked_from: run.forked_from.as_ref().map(ToString::to_string).unwrap_or_default(),
        by_hand: run.by_hand,
    }
}

pub(crate) fn role(number: i32) -> Result<Role> {
    match wire::Role::try_from(number) {
        Ok(wire::Role::Rollout) => Ok(Role::Rollout),
        Ok(wire::Role::Judge) => Ok(Role::Judge),
        Ok(wire::Role::Learner) => Ok(Role::Learner),
        _ => Err(Error::value("role", number, "rollout, judge or learner")),
    }
}

pub(crate) fn registration(request: wire::RegisterWorkerRequest) -> Result<Registration> {
    let address = request.address;
    let wanted = format!("a URL of at most {MAX_ADDRESS_BYTES} bytes");
    if address.len() > MAX_ADDRESS_BYTES || !address.starts_with("http") {
        return Err(Error::value("address", format!("{} bytes", address.len()), wanted));
    }
    Ok(Registration {
        worker: name("worker", request.worker)?,
        role: role(request.role)?,
        address,
        budget_bytes: request.budget_bytes,
        start: name("idempotency_key", request.idempotency_key)?,
    })
}

pub(crate) fn progress(list: Vec<wire::WorkerProgress>) -> Result<Vec<(RunId, WorkerProgress)>> {
    counted("progress", list.len(), 0..=1024)?;
    let one = |told: wire::WorkerProgress| {
        let progress = WorkerProgress {
            generation: told.generation,
            recovered: told.recovered,
            restored_steps: told.restored_steps,
            version: told.policy_version,
            steps_done: told.steps_done,
            ended: told.ended,
            failed: told.failed,
        };
        Ok((run_id("progress.run_id", &told.run_id)?, progress))
    };
    list.into_iter().map(one).collect()
}

/// Leaves out what JSON has no word for.
fn finite(metrics: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    metrics.into_iter().filter(|(_, value)| value.is_finite()).collect()
}

/// Parses what a learner tells; `None` for a kind that this version does not know.
pub(crate) fn told(event: wire::LearnerEvent) -> Result<Option<(RunId, u64, What)>> {
    use wire::learner_event::Event as Kind;
    let run = run_id("events.run_id", &event.run_id)?;
    let what = match event.event {
        None => return Ok(None),
        Some(Kind::Step(step)) => What::Step {
            step: step.step,
            metrics: finite(step.metrics),
            dropped: step.dropped.into_iter().collect(),
            recovered: step.recovered,
        },
        Some(Kind::Evaluation(evaluation)) => {
            What::Evaluation { steps_done: evaluation.steps_done, metrics: finite(evaluation.metrics) }
        }
        Some(Kind::Checkpoint(found)) => {
            What::Checkpoint { checkpoint: name("events.checkpoint", found.checkpoint)?, steps_done: found.steps_done }
        }
        Some(Kind::Models(set)) => {
            let set: Option<ModelSet> = optional("events.models", Some(set))?;
            let Some(set) = set else { return Ok(None) };
            What::Models(set)
        }
    };
    Ok(Some((run, event.sequence, what)))
}

/// Says an event at its position.
pub(crate) fn event(position: u64, told: Told) -> wire::WatchRunResponse {
    use wire::watch_run_response::Event as Kind;
    let event = match told.what {
        What::State { state: name, reason } => {
            let states = [
                RunState::Pending,
                RunState::Running,
                RunState::Paused,
                RunState::Draining,
                RunState::Done,
                RunState::Failed,
            ];
            let known = states.into_iter().find(|state| state.name() == name).map_or(0, |found| state(found).into());
            Kind::State(wire::StateEvent { state: known, reason })
        }
        What::Step { step, metrics, dropped, recovered } => Kind::Step(wire::StepEvent {
            step,
            metrics: metrics.into_iter().collect(),
            dropped: dropped.into_iter().collect(),
            recovered,
        }),
        What::Evaluation { steps_done, metrics } => {
            Kind::Evaluation(wire::EvaluationEvent { steps_done, metrics: metrics.into_iter().collect() })
        }
        What::Checkpoint { checkpoint, steps_done } => {
            Kind::Checkpoint(wire::CheckpointEvent { checkpoint, steps_done })
        }
        What::Models(set) => Kind::Models(set.into()),
    };
    wire::WatchRunResponse { position, at: Some(moment(told.at_ms)), event: Some(event) }
}

pub(crate) fn assignment(assignment: Assignment) -> wire::Assignment {
    wire::Assignment {
        run_id: assignment.run.to_string(),
        run_toml: assignment.toml,
        settings_hash: assignment.hash,
        learner_address: assignment.learner_address,
        generation: assignment.generation,
        by_hand: assignment.by_hand,
        stopping: assignment.stopping,
        steps: assignment.steps,
    }
}

pub(crate) fn member(member: &Member, runs: Vec<String>) -> wire::Member {
    let role = match member.role {
        Role::Rollout => wire::Role::Rollout,
        Role::Judge => wire::Role::Judge,
        Role::Learner => wire::Role::Learner,
    };
    let progress = |(run, told): (&RunId, &WorkerProgress)| wire::WorkerProgress {
        run_id: run.to_string(),
        policy_version: told.version,
        steps_done: told.steps_done,
        ended: told.ended.clone(),
        failed: told.failed.clone(),
        generation: told.generation,
        recovered: told.recovered,
        restored_steps: told.restored_steps,
    };
    wire::Member {
        worker: member.worker.clone(),
        role: role.into(),
        address: member.address.clone(),
        draining: member.draining,
        run_ids: runs,
        progress: member.progress.iter().map(progress).collect(),
    }
}
