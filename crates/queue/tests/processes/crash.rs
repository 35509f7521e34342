//! A process killed anywhere leaves exactly what it acknowledged; only the operation in flight may be there or not.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use joust_core::rng::{Stream, uniform};

use crate::{
    child::{self, Victim},
    model::{Model, look},
    run_to_end,
    script::{SCRIPT, Session},
};

const FIRST: &str = "JOUST_QUEUE_TEST_FIRST";
const LAST: &str = "JOUST_QUEUE_TEST_LAST";
const STEP: &str = "JOUST_QUEUE_TEST_STEP";
const WAITS: &str = "JOUST_QUEUE_TEST_WAITS";

/// The process that is killed.
#[test]
#[ignore = "started by the tests beside it"]
fn worker() {
    let mut session = Session::open(&child::file(), child::number(STEP));
    run_to_end(async {
        for place in child::number(FIRST)..child::number(LAST) {
            session.perform(place).await;
            child::acknowledge(&place.to_string());
            if child::number(WAITS) > 0 {
                child::wait_for_parent();
            }
        }
    });
}

fn start(file: &Path, more: &[(&str, String)]) -> Victim {
    let settings = [&[(LAST, SCRIPT.to_string())], more].concat();
    Victim::start("crash::worker", file, &settings)
}

/// Returns what the first operations of the script make, in one process.
fn after(operations: u64) -> Model {
    let mut model = Model::default();
    (0..operations).for_each(|place| model.perform(place));
    model
}

#[test]
fn a_kill_between_two_operations_leaves_what_was_acknowledged() {
    for operations in 1..=SCRIPT {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("queue.redb");
        let mut victim = start(&file, &[(WAITS, "1".into())]);
        for place in 0..operations {
            assert_eq!(victim.next(), Some(place.to_string()));
            if place + 1 < operations {
                victim.go_on();
            }
        }
        let (more, status) = victim.kill();
        assert!(more.is_empty() && !status.success(), "the child waited: {more:?}, {status}");
        assert_eq!(look(&file), after(operations).reopened(), "after {operations} operations");
    }
}

/// Aborts a child the n-th time that it passes a point, for every n that it reaches; returns how often it was aborted.
fn abort_everywhere(point: &str, landed: u64) -> u64 {
    let mut aborts = 0;
    loop {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("queue.redb");
        let (done, status) = start(&file, &[("JOUST_FAILPOINT", format!("{point}:{}", aborts + 1))]).end();
        let done = done.len() as u64;
        if status.success() {
            assert_eq!((done, look(&file)), (SCRIPT, after(SCRIPT).reopened()));
            return aborts;
        }
        // What opens the file passes the point too, before the first operation is in flight.
        let (seen, without, with) = (look(&file), after(done).reopened(), after(done + landed).reopened());
        assert!(seen == with || (done == 0 && seen == without), "{point}, {aborts}: {seen:?}\nnot {with:?}");
        aborts += 1;
    }
}

#[test]
fn an_abort_before_a_commit_leaves_nothing_of_it() {
    let commits = abort_everywhere("queue_before_commit", 0);
    assert!(commits > SCRIPT / 2, "only {commits} commits");
}

#[test]
fn an_abort_after_a_commit_leaves_all_of_it() {
    let commits = abort_everywhere("queue_after_commit", 1);
    assert!(commits > SCRIPT / 2, "only {commits} commits");
}

/// Brings the model to what a killed child left: all that it acknowledged, perhaps one operation more.
fn follow(model: &mut Model, place: &mut u64, acknowledged: &[String], file: &Path) {
    for done in acknowledged {
        assert_eq!(*done, place.to_string());
        model.perform(*place);
        *place += 1;
    }
    let seen = look(file);
    if seen != model.reopened() {
        let without = model.reopened();
        model.perform(*place);
        *place += 1;
        assert!(seen == model.reopened(), "{seen:?}\nis neither {without:?}\nnor {:?}", model.reopened());
    }
    model.crash();
}

#[test]
fn kills_at_random_moments_leave_what_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.redb");
    let (mut model, mut place, mut worked) = (Model::default(), 0, 0);
    for kill in 0..30 {
        let settings =
            [(FIRST, place.to_string()), (LAST, u64::MAX.to_string()), (STEP, model.next_step().to_string())];
        let victim = Victim::start("crash::worker", &file, &settings);
        // Every third time the file may still be opening; else the child has begun to work.
        let mut done: Vec<String> = if kill % 3 == 0 { Vec::new() } else { victim.next().into_iter().collect() };
        let delay = Duration::from_secs_f64(0.1 * uniform(1, Stream::Init, kill, (0, 0)));
        done.extend(victim.until(Instant::now() + delay));
        let (more, status) = victim.kill();
        assert!(!status.success(), "the script has no end: {status}");
        done.extend(more);
        worked += u64::from(!done.is_empty());
        follow(&mut model, &mut place, &done, &file);
    }
    assert!(worked >= 20, "only {worked} children came to work");
}

#[test]
fn a_kill_while_the_file_is_made_leaves_one_that_opens() {
    for kill in 0..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("queue.redb");
        let victim = start(&file, &[]);
        // From before the first byte to the first operations.
        let delay = Duration::from_secs_f64(0.05 * uniform(2, Stream::Init, kill, (0, 0)));
        let mut done = victim.until(Instant::now() + delay);
        done.extend(victim.kill().0);
        follow(&mut Model::default(), &mut 0, &done, &file);
    }
}
