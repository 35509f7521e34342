//! Cases: assigning and retiring steps (R2).

use super::{Bench, LEASE, item, items};
use crate::{AssignedStep, Error, Fence, Item, StepManifest};

fn plan(step: u64) -> StepManifest {
    StepManifest { step, body: format!("plan {step}").into_bytes() }
}

/// Puts, takes and assigns two items a step: `2 * step` and `2 * step + 1`.
async fn assign(bench: &Bench, steps: std::ops::Range<u64>, fence: Fence) {
    for step in steps {
        bench.put(&bench.pairs, [2 * step, 2 * step + 1]).await;
        let leases = bench.leases(&bench.pairs, 2).await;
        bench.queue.assign(&bench.pairs, leases, plan(step), fence).await.expect("an assignment");
    }
}

async fn fence(bench: &Bench) -> Fence {
    bench.queue.fence(&bench.pairs).await.expect("a fence")
}

async fn assigned(bench: &Bench, from: u64) -> Vec<AssignedStep> {
    bench.queue.assigned(&bench.pairs, from).await.expect("the assigned steps")
}

async fn kept(bench: &Bench) -> Vec<(u64, Item)> {
    bench.queue.kept(&bench.pairs).await.expect("what is kept")
}

pub(super) async fn an_assigned_step_needs_no_lease(bench: &Bench) {
    let fence = fence(bench).await;
    assign(bench, 0..2, fence).await;
    bench.clock.advance(LEASE * 10);
    assert!(bench.take(&bench.pairs, 9).await.is_empty(), "what is assigned is handed out no more");
    let steps = assigned(bench, 0).await;
    assert_eq!(steps[0], AssignedStep { manifest: plan(0), items: items([0, 1]) });
    assert_eq!(steps[1], AssignedStep { manifest: plan(1), items: items([2, 3]) });
    assert_eq!(assigned(bench, 1).await, steps[1..]);
    assert_eq!(bench.queue.put(&bench.pairs, items([0])).await.expect("a put").duplicates, 1);
    assert_eq!(bench.stats(&bench.pairs).await.assigned, 4);
}

pub(super) async fn an_assigned_step_keeps_the_order_of_its_leases(bench: &Bench) {
    let fence = fence(bench).await;
    bench.put(&bench.pairs, [1, 2, 3]).await;
    let mut leases = bench.leases(&bench.pairs, 3).await;
    leases.reverse();
    bench.queue.assign(&bench.pairs, leases, plan(0), fence).await.expect("an assignment");
    assert_eq!(assigned(bench, 0).await[0].items, items([3, 2, 1]));
}

pub(super) async fn steps_are_assigned_once_and_in_order(bench: &Bench) {
    let fence = fence(bench).await;
    // A learner may bring its checkpoint to a new queue: the first step has any number.
    assign(bench, 7..8, fence).await;
    bench.put(&bench.pairs, [90]).await;
    let leases = bench.leases(&bench.pairs, 1).await;
    let assign = |step| bench.queue.assign(&bench.pairs, leases.clone(), plan(step), fence);
    assert!(matches!(assign(7).await, Err(Error::AlreadyAssigned { step: 7, .. })));
    assert!(matches!(assign(9).await, Err(Error::StepGap { expected: 8, found: 9, .. })));
    assert_eq!(bench.stats(&bench.pairs).await.leased, 1);
    assign(8).await.expect("the next step, and the lease is still good");
    bench.queue.retire(&bench.pairs, 8, 0, fence).await.expect("a retirement");
    assert!(matches!(assign(8).await, Err(Error::AlreadyAssigned { .. })), "a retired step stays assigned");
}

pub(super) async fn a_stale_fence_changes_nothing(bench: &Bench) {
    let refused = bench.queue.assign(&bench.pairs, Vec::new(), plan(0), Fence(0)).await;
    assert!(matches!(refused, Err(Error::Fenced { current: 0, .. })), "no fence was taken yet: {refused:?}");
    let old = fence(bench).await;
    assign(bench, 0..1, old).await;
    bench.put(&bench.pairs, [90]).await;
    let leases = bench.leases(&bench.pairs, 1).await;
    let new = fence(bench).await;
    assert!(new > old);
    let before = bench.stats(&bench.pairs).await;
    let late = bench.queue.assign(&bench.pairs, leases.clone(), plan(1), old).await;
    assert!(matches!(late, Err(Error::Fenced { held, current, .. }) if (held, current) == (old.0, new.0)), "{late:?}");
    assert!(matches!(bench.queue.retire(&bench.pairs, 0, 0, old).await, Err(Error::Fenced { .. })));
    assert_eq!(bench.stats(&bench.pairs).await, before);
    bench.queue.assign(&bench.pairs, leases, plan(1), new).await.expect("the new fence is good");
    let other = bench.queue.fence(&bench.prompts).await.expect("a fence");
    assert_eq!(other, Fence(1), "each topic has fences of its own");
}

pub(super) async fn a_stale_lease_stops_the_whole_assignment(bench: &Bench) {
    let fence = fence(bench).await;
    bench.put(&bench.pairs, [1, 2]).await;
    let leases = bench.leases(&bench.pairs, 2).await;
    bench.queue.release(&leases[1..]).await.expect("a release");
    let lost = bench.queue.assign(&bench.pairs, leases.clone(), plan(0), fence).await;
    assert!(matches!(lost, Err(Error::LeaseLost { id, .. }) if id == item(2).id), "{lost:?}");
    bench.put(&bench.prompts, [1]).await;
    let foreign = bench.leases(&bench.prompts, 1).await;
    let wrong = bench.queue.assign(&bench.pairs, foreign, plan(0), fence).await;
    assert!(matches!(wrong, Err(Error::WrongTopic { .. })), "{wrong:?}");
    assert!(assigned(bench, 0).await.is_empty());
    bench.queue.assign(&bench.pairs, leases[..1].to_vec(), plan(0), fence).await.expect("step 0 is still free");
}

pub(super) async fn retired_steps_are_finished_and_kept(bench: &Bench) {
    let fence = fence(bench).await;
    assign(bench, 0..5, fence).await;
    let retire = |through, keep_from| bench.queue.retire(&bench.pairs, through, keep_from, fence);
    let of_steps = |steps: std::ops::Range<u64>| -> Vec<(u64, Item)> {
        steps.flat_map(|step| [(step, item(2 * step)), (step, item(2 * step + 1))]).collect()
    };
    for _ in 0..2 {
        retire(2, 1).await.expect("a retirement, and the same once more");
        assert_eq!(kept(bench).await, of_steps(1..3));
        assert_eq!(assigned(bench, 0).await.iter().map(|step| step.manifest.step).collect::<Vec<_>>(), [3, 4]);
        let stats = bench.stats(&bench.pairs).await;
        assert_eq!((stats.finished, stats.assigned, stats.kept), (6, 4, 4));
    }
    retire(9, 4).await.expect("steps that are not assigned yet are no matter");
    assert_eq!(kept(bench).await, of_steps(4..5));
    retire(9, 99).await.expect("a retirement that keeps nothing");
    assert!(kept(bench).await.is_empty());
    let stats = bench.stats(&bench.pairs).await;
    assert_eq!((stats.finished, stats.kept, stats.put), (10, 0, 10));
    assert_eq!(bench.queue.put(&bench.pairs, items([0, 9])).await.expect("a put").duplicates, 2, "ids stay known");
}
