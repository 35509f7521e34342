//! What the coordinator decides, as a pure state machine: no clock, no network, no disk.
//!
//! [`Cluster::apply`] takes what happened at a time and changes runs and members; the caller makes the runs durable and does the rest. A run's
//! state follows from what was asked for and what is known: nothing is stored twice.

mod member;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use joust_core::{ModelSet, RunId};
use joust_proto::{Failure, Reason};

pub use member::{Assignment, LEASE_MS, Member, Registration, Role, WorkerProgress};
pub use run::{End, Holder, NewRun, NewSettings, Run, RunState};

/// Runs and members of one cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    runs: BTreeMap<RunId, Run>,
    members: BTreeMap<String, Member>,
    /// The lease that was given last; rises with each start of the coordinator, so that no old one is taken for a new one.
    last_lease: u64,
}

/// What happens to a cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A user makes a run.
    Create(Box<NewRun>),
    /// A user holds a run's prompts back.
    Pause(RunId),
    /// A user lets them go on.
    Resume(RunId),
    /// A user ends a run after its step.
    Stop(RunId),
    /// A user gives a run other settings.
    Change(RunId, NewSettings),
    /// A run's learner has published models.
    Published(RunId, ModelSet),
    /// A worker wants to serve.
    Register(Registration),
    /// A worker says that it lives, and how far it is.
    Heartbeat {
        /// Its name.
        worker: String,
        /// Its lease.
        lease: u64,
        /// How far it is with each run.
        progress: Vec<(RunId, WorkerProgress)>,
        /// Whether it takes no more work.
        draining: bool,
    },
    /// Time passes.
    Tick,
}

impl Cluster {
    /// Goes on with the runs that an earlier start made durable. Their learners are given a lease's time to come back before others take over.
    pub fn restored(runs: Vec<Run>, now_ms: u64) -> Self {
        let holders = runs.iter().filter(|run| run.end.is_none()).filter_map(|run| run.learner.clone());
        let members = holders.map(|holder| (holder.worker.clone(), Member::awaited(holder, now_ms))).collect();
        // Leases of this start begin behind all of those before.
        Self { members, runs: runs.into_iter().map(|run| (run.id.clone(), run)).collect(), last_lease: now_ms }
    }

    /// Changes the cluster by what happened at `now_ms`, in milliseconds since the epoch. What failed changes nothing but the passing of time.
    ///
    /// # Errors
    /// A [`Failure`] for the caller: a run or worker that is not there, a name that is taken, a lease that is lost, a state that forbids it.
    pub fn apply(&mut self, now_ms: u64, event: Event) -> Result<(), Failure> {
        self.expire(now_ms);
        let done = match event {
            Event::Create(new) => self.create(now_ms, *new),
            Event::Pause(id) => self.change(&id, |run| run.paused = true),
            Event::Resume(id) => self.change(&id, |run| run.paused = false),
            Event::Stop(id) => self.change(&id, |run| run.stopping = true),
            Event::Change(id, settings) => self.set(&id, settings),
            Event::Published(id, set) => self.change(&id, |run| run.models = Some(set)),
            Event::Register(registration) => self.register(now_ms, registration),
            Event::Heartbeat { worker, lease, progress, draining } => {
                self.heartbeat(now_ms, (&worker, lease), progress, draining)
            }
            Event::Tick => Ok(()),
        };
        self.place();
        done
    }

    /// Returns a run.
    ///
    /// # Errors
    /// A [`Failure`] if there is none of this name.
    pub fn run(&self, id: &RunId) -> Result<&Run, Failure> {
        self.runs
            .get(id)
            .ok_or_else(|| Failure::new(Reason::UnknownRun, format!("there is no run {id}; list the runs")))
    }

    /// Returns all runs, by name.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// Returns the members, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.lease > 0)
    }

    /// Returns a member whose lease holds.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name).filter(|member| member.lease > 0)
    }

    /// Returns what a member is to do: a learner its one run, the others each run that has a learner, oldest first, as far as its memory
    /// goes.
    pub fn assignments(&self, worker: &str) -> Vec<Assignment> {
        let Some(member) = self.member(worker) else { return Vec::new() };
        let mut active: Vec<&Run> = self.runs.values().filter(|run| run.end.is_none()).collect();
        active.sort_by_key(|run| (run.created_ms, run.id.clone()));
        let mut left = if member.budget_bytes == 0 { u64::MAX } else { member.budget_bytes };
        let fits = |run: &&Run| match member.role {
            Role::Learner => run.is_held_by(worker),
            Role::Judge => run.learner.is_some(),
            Role::Rollout if run.learner.is_some() && run.model_bytes <= left => {
                left -= run.model_bytes;
                true
            }
            Role::Rollout => false,
        };
        active.into_iter().filter(fits).map(|run| self.assignment(run)).collect()
    }

    fn assignment(&self, run: &Run) -> Assignment {
        let learner = run.learner.as_ref().and_then(|holder| self.member(&holder.worker));
        Assignment {
            run: run.id.clone(),
            toml: run.toml.clone(),
            hash: run.hash.clone(),
            learner_address: learner.map(|learner| learner.address.clone()).unwrap_or_default(),
            generation: run.generation,
            by_hand: run.by_hand,
            stopping: run.stopping,
            steps: run.steps,
        }
    }

    fn create(&mut self, now_ms: u64, new: NewRun) -> Result<(), Failure> {
        if let Some(found) = self.runs.get(&new.id) {
            // A repeat of the call that made it.
            if found.key == new.key && !new.key.is_empty() {
                return Ok(());
            }
            let text = format!("run {} exists already ({}); choose another name", new.id, found.state().name());
            return Err(Failure::new(Reason::RunExists, text));
        }
        self.runs.insert(new.id.clone(), Run::new(new, now_ms));
        Ok(())
    }

    fn change(&mut self, id: &RunId, change: impl FnOnce(&mut Run)) -> Result<(), Failure> {
        self.run(id)?.check_open()?;
        change(self.runs.get_mut(id).expect("it was just found"));
        Ok(())
    }

    /// Gives a run other settings, unless it has moved on since they were checked.
    fn set(&mut self, id: &RunId, settings: NewSettings) -> Result<(), Failure> {
        let run = self.run(id)?;
        if run.toml != settings.from {
            let text = format!("the settings of run {id} were changed by another call meanwhile; ask again");
            return Err(Failure::new(Reason::WrongState, text));
        }
        if settings.steps < run.steps_done {
            let text =
                format!("learner.steps = {} is below the {} steps that are done", settings.steps, run.steps_done);
            return Err(Failure::new(Reason::InvalidField, text).of_field("overrides"));
        }
        self.change(id, |run| run.change(settings))
    }

    fn register(&mut self, now_ms: u64, registration: Registration) -> Result<(), Failure> {
        let again = self.members.get(&registration.worker).filter(|member| member.start == registration.start);
        let lease = match again {
            Some(member) if member.lease > 0 => member.lease,
            _ => {
                self.last_lease += 1;
                self.last_lease
            }
        };
        let holder = Holder { worker: registration.worker.clone(), start: registration.start.clone() };
        self.members.insert(registration.worker.clone(), Member::new(registration, lease, now_ms));
        for run in self.runs.values_mut().filter(|run| run.is_held_by(&holder.worker)) {
            // A new start takes the run over from the start before.
            if run.learner.as_ref() != Some(&holder) {
                run.hand_to(Some(holder.clone()));
            }
        }
        Ok(())
    }

    fn heartbeat(
        &mut self,
        now_ms: u64,
        (worker, lease): (&str, u64),
        progress: Vec<(RunId, WorkerProgress)>,
        draining: bool,
    ) -> Result<(), Failure> {
        let known = self.members.get_mut(worker).filter(|member| member.lease == lease && lease > 0);
        let Some(member) = known else {
            let text = format!("worker {worker} does not hold lease {lease}; register anew");
            return Err(Failure::new(Reason::LeaseLost, text));
        };
        member.expires_ms = now_ms + LEASE_MS;
        member.draining = draining;
        if member.role == Role::Learner {
            for (id, progress) in &progress {
                let held = self.runs.get_mut(id).filter(|run| run.is_held_by(worker));
                held.into_iter().for_each(|run| run.advance(progress));
            }
        }
        member.progress = progress.into_iter().collect();
        Ok(())
    }

    /// Forgets members whose lease is over; their runs wait for another learner.
    fn expire(&mut self, now_ms: u64) {
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|member| member.expires_ms <= now_ms)
            .map(|member| member.worker.clone())
            .collect();
        for name in gone {
            self.members.remove(&name);
            self.runs.values_mut().filter(|run| run.is_held_by(&name)).for_each(|run| run.hand_to(None));
        }
    }

    /// Gives runs without a learner to learners without a run, oldest first.
    fn place(&mut self) {
        let mut waiting: Vec<(u64, RunId)> = Vec::new();
        for run in self.runs.values_mut().filter(|run| run.end.is_none() && run.learner.is_none()) {
            if run.stopping {
                // Nobody trains it, so it ends where it is.
                run.end = Some(End::Done("stopped".into()));
            } else {
                waiting.push((run.created_ms, run.id.clone()));
            }
        }
        waiting.sort();
        for (_, id) in waiting {
            let busy = |name: &str| self.runs.values().any(|run| run.is_held_by(name));
            let mut free = self.members.values().filter(|member| {
                member.role == Role::Learner && member.lease > 0 && !member.draining && !busy(&member.worker)
            });
            let holder = |member: &Member| Holder { worker: member.worker.clone(), start: member.start.clone() };
            let Some(holder) = free.next().map(holder) else { return };
            self.runs.get_mut(&id).expect("it was just listed").hand_to(Some(holder));
        }
    }
}
