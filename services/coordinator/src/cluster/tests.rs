//! The rules by example, and over random histories.

use joust_core::{Release, RunId};
use joust_proto::Reason;
use proptest::prelude::*;

use super::*;

fn id(name: &str) -> RunId {
    RunId::new(name).expect("a name")
}

fn new(name: &str, key: &str) -> Event {
    Event::Create(Box::new(NewRun {
        id: id(name),
        toml: String::new(),
        hash: "0".repeat(64),
        release: Release { prompts_per_step: 4, steps: 10, max_staleness: 1, iteration_steps: 1 },
        model_bytes: 100,
        by_hand: false,
        key: key.into(),
        forked_from: None,
    }))
}

fn register(worker: &str, role: Role, start: &str) -> Event {
    let (worker, address, start) = (worker.to_owned(), format!("http://{worker}:1"), start.to_owned());
    Event::Register(Registration { worker, role, address, budget_bytes: 250, start })
}

fn beat(cluster: &Cluster, worker: &str, progress: Vec<(RunId, WorkerProgress)>) -> Event {
    let lease = cluster.member(worker).map_or(0, |member| member.lease);
    Event::Heartbeat { worker: worker.into(), lease, progress, draining: false }
}

fn at(steps_done: u64, generation: u64) -> WorkerProgress {
    WorkerProgress { generation, recovered: true, version: steps_done, steps_done, ..WorkerProgress::default() }
}

#[track_caller]
fn ok(cluster: &mut Cluster, now_ms: u64, event: Event) {
    cluster.apply(now_ms, event).expect("it is allowed");
}

fn state(cluster: &Cluster, name: &str) -> RunState {
    cluster.run(&id(name)).expect("there").state()
}

#[test]
fn a_run_waits_for_a_learner_trains_and_ends() {
    let mut cluster = Cluster::default();
    ok(&mut cluster, 0, new("a", "k"));
    ok(&mut cluster, 1, new("b", "k2"));
    assert_eq!(state(&cluster, "a"), RunState::Pending);
    ok(&mut cluster, 2, register("l", Role::Learner, "1"));
    ok(&mut cluster, 3, register("r", Role::Rollout, "1"));
    assert_eq!((state(&cluster, "a"), state(&cluster, "b")), (RunState::Running, RunState::Pending));
    assert_eq!(cluster.run(&id("a")).expect("there").releases(), None, "its learner has not recovered");
    let told = beat(&cluster, "l", vec![(id("a"), at(3, 1))]);
    ok(&mut cluster, 4, told);
    assert_eq!(cluster.run(&id("a")).expect("there").releases().map(|p| p.steps_done), Some(3));
    let names = |cluster: &Cluster, worker: &str| {
        cluster.assignments(worker).iter().map(|a| a.run.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((names(&cluster, "l"), names(&cluster, "r")), (vec!["a".into()], vec!["a".to_owned()]));
    let done = WorkerProgress { ended: "finished".into(), ..at(10, 1) };
    let told = beat(&cluster, "l", vec![(id("a"), done)]);
    ok(&mut cluster, 5, told);
    assert_eq!((state(&cluster, "a"), state(&cluster, "b")), (RunState::Done, RunState::Running));
    assert_eq!(names(&cluster, "l"), ["b"]);
}

#[test]
fn a_pause_holds_prompts_back_and_a_stop_ends_after_the_step() {
    let mut cluster = Cluster::default();
    ok(&mut cluster, 0, register("l", Role::Learner, "1"));
    ok(&mut cluster, 0, new("a", ""));
    let told = beat(&cluster, "l", vec![(id("a"), at(1, 1))]);
    ok(&mut cluster, 1, told);
    ok(&mut cluster, 2, Event::Pause(id("a")));
    assert_eq!((state(&cluster, "a"), cluster.run(&id("a")).expect("there").releases()), (RunState::Paused, None));
    ok(&mut cluster, 3, Event::Resume(id("a")));
    ok(&mut cluster, 4, Event::Stop(id("a")));
    assert_eq!(state(&cluster, "a"), RunState::Draining);
    assert!(cluster.assignments("l")[0].stopping);
    let told = beat(&cluster, "l", vec![(id("a"), WorkerProgress { ended: "stopped".into(), ..at(2, 1) })]);
    ok(&mut cluster, 5, told);
    assert_eq!(state(&cluster, "a"), RunState::Done);
    let refused = cluster.apply(6, Event::Pause(id("a"))).expect_err("it has ended");
    assert_eq!(refused.reason(), Reason::WrongState);
}

#[test]
fn a_learner_that_is_gone_is_replaced_and_not_believed_again() {
    let mut cluster = Cluster::default();
    ok(&mut cluster, 0, register("l", Role::Learner, "1"));
    ok(&mut cluster, 0, new("a", ""));
    let late = beat(&cluster, "l", vec![(id("a"), at(9, 1))]);
    ok(&mut cluster, LEASE_MS - 1, Event::Tick);
    assert_eq!(state(&cluster, "a"), RunState::Running);
    ok(&mut cluster, LEASE_MS, Event::Tick);
    assert_eq!(state(&cluster, "a"), RunState::Pending);
    ok(&mut cluster, LEASE_MS, register("m", Role::Learner, "1"));
    assert_eq!(cluster.run(&id("a")).expect("there").generation, 2);
    assert_eq!(cluster.apply(LEASE_MS + 1, late).expect_err("stale").reason(), Reason::LeaseLost);
    assert_eq!(cluster.run(&id("a")).expect("there").steps_done, 0);
}

#[test]
fn a_new_start_ends_the_lease_of_the_one_before_and_a_repeat_does_not() {
    let mut cluster = Cluster::default();
    ok(&mut cluster, 0, register("l", Role::Learner, "1"));
    ok(&mut cluster, 0, new("a", ""));
    let first = cluster.member("l").expect("there").lease;
    ok(&mut cluster, 1, register("l", Role::Learner, "1"));
    assert_eq!(
        (cluster.member("l").expect("there").lease, cluster.run(&id("a")).expect("there").generation),
        (first, 1)
    );
    ok(&mut cluster, 2, register("l", Role::Learner, "2"));
    assert!(cluster.member("l").expect("there").lease > first);
    assert_eq!(cluster.run(&id("a")).expect("there").generation, 2);
}

#[test]
fn a_coordinator_that_comes_back_waits_for_the_learners_that_it_knew() {
    let mut cluster = Cluster::default();
    ok(&mut cluster, 0, register("l", Role::Learner, "1"));
    ok(&mut cluster, 0, new("a", "k"));
    let before = cluster.member("l").expect("there").lease;
    let mut again = Cluster::restored(cluster.runs().cloned().collect(), 100);
    assert!(again.members().next().is_none());
    // Another learner does not get the run of one that is only awaited.
    ok(&mut again, 101, register("m", Role::Learner, "1"));
    assert!(again.assignments("m").is_empty());
    ok(&mut again, 102, register("l", Role::Learner, "1"));
    let run = again.run(&id("a")).expect("there");
    assert_eq!((run.generation, run.state()), (1, RunState::Running));
    assert!(again.member("l").expect("there").lease > before);
    // The same call makes nothing twice, another one is refused.
    ok(&mut again, 103, new("a", "k"));
    assert_eq!(again.apply(103, new("a", "k3")).expect_err("taken").reason(), Reason::RunExists);
}

#[test]
fn rollout_workers_serve_what_fits_their_memory() {
    let mut cluster = Cluster::default();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        ok(&mut cluster, i as u64, new(name, ""));
        ok(&mut cluster, i as u64, register(&format!("l{i}"), Role::Learner, "1"));
    }
    ok(&mut cluster, 3, register("r", Role::Rollout, "1"));
    let names: Vec<String> = cluster.assignments("r").iter().map(|a| a.run.to_string()).collect();
    assert_eq!(names, ["a", "b"], "250 bytes hold two models of 100");
}

fn events() -> impl Strategy<Value = Vec<(u64, u8, u8, u8)>> {
    prop::collection::vec((0..3000u64, 0..8u8, 0..3u8, 0..3u8), 1..120)
}

proptest! {
    #[test]
    fn no_history_breaks_the_rules(history in events()) {
        let mut cluster = Cluster::default();
        let (mut now, mut generations) = (0, std::collections::BTreeMap::<RunId, (u64, Option<End>)>::new());
        for (passed, kind, which, other) in history {
            now += passed;
            let (run, worker) = (format!("run{which}"), format!("worker{other}"));
            let role = [Role::Learner, Role::Learner, Role::Rollout][other as usize];
            let generation = cluster.run(&id(&run)).map_or(0, |run| run.generation);
            let event = match kind {
                0 => new(&run, "k"),
                1 => Event::Pause(id(&run)),
                2 => Event::Resume(id(&run)),
                3 => Event::Stop(id(&run)),
                4 => register(&worker, role, &which.to_string()),
                5 => beat(&cluster, &worker, vec![(id(&run), at(u64::from(which), generation))]),
                6 => beat(&cluster, &worker, vec![(id(&run), WorkerProgress { ended: "finished".into(), ..at(10, generation) })]),
                _ => Event::Tick,
            };
            // What is refused changes nothing that the checks below see.
            let _ = cluster.apply(now, event);
            let mut held = std::collections::BTreeSet::new();
            let idle = cluster.members().filter(|m| m.role == Role::Learner && cluster.assignments(&m.worker).is_empty()).count();
            for run in cluster.runs() {
                if run.end.is_none() && let Some(holder) = &run.learner {
                    prop_assert!(held.insert(holder.worker.clone()), "a learner has two runs");
                    prop_assert!(cluster.member(&holder.worker).is_some(), "a learner that is gone has a run");
                }
                prop_assert!(run.state() != RunState::Pending || idle == 0, "a run waits beside a free learner");
                prop_assert!(run.releases().is_none() || run.state() == RunState::Running);
                let before = generations.insert(run.id.clone(), (run.generation, run.end.clone()));
                if let Some((generation, end)) = before {
                    prop_assert!(run.generation >= generation);
                    prop_assert!(end.is_none() || end == run.end, "an end changed");
                }
            }
        }
    }
}
