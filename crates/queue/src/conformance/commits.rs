//! Cases: moving records in one atomic step (R1).

use std::{collections::BTreeMap, time::Duration};

use super::{Bench, CAPACITY, LEASE, item, items, items_of};
use crate::{Done, Error, Item, Lease, Topic};

fn moved(leases: &[Lease]) -> Vec<(Lease, Done)> {
    leases.iter().map(|lease| (lease.clone(), Done::Moved)).collect()
}

fn outputs(topic: &Topic, numbers: impl IntoIterator<Item = u64>) -> Vec<(Topic, Item)> {
    numbers.into_iter().map(|number| (topic.clone(), item(number))).collect()
}

pub(super) async fn a_commit_moves_its_input(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    let leases = bench.leases(&bench.prompts, 2).await;
    bench.queue.commit(moved(&leases), outputs(&bench.pairs, [11, 12])).await.expect("a commit");
    assert_eq!(items_of(&bench.take(&bench.pairs, 9).await), items([11, 12]), "outputs keep their order");
    let (prompts, pairs) = (bench.stats(&bench.prompts).await, bench.stats(&bench.pairs).await);
    assert_eq!((prompts.finished, prompts.leased, pairs.put), (2, 0, 2));
}

pub(super) async fn every_outcome_is_counted(bench: &Bench) {
    bench.put(&bench.prompts, 1..5).await;
    let leases = bench.leases(&bench.prompts, 4).await;
    let outcomes =
        [Done::Moved, Done::Dropped("tie".into()), Done::Dropped("tie".into()), Done::Retry("judge down".into())];
    bench.queue.commit(leases.into_iter().zip(outcomes).collect(), Vec::new()).await.expect("a commit");
    let stats = bench.stats(&bench.prompts).await;
    assert_eq!((stats.put, stats.finished, stats.retried, stats.waiting), (4, 1, 1, 1));
    assert_eq!(stats.dropped, BTreeMap::from([("tie".into(), 2)]));
}

pub(super) async fn a_stale_lease_stops_the_whole_commit(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    let leases = bench.leases(&bench.prompts, 2).await;
    bench.clock.advance(LEASE);
    let new = bench.leases(&bench.prompts, 1).await;
    let mixed = vec![(new[0].clone(), Done::Moved), (leases[1].clone(), Done::Moved)];
    let lost = bench.queue.commit(mixed, outputs(&bench.pairs, [11, 12])).await;
    assert!(matches!(lost, Err(Error::LeaseLost { id, .. }) if id == item(2).id), "{lost:?}");
    let stats = bench.stats(&bench.prompts).await;
    assert_eq!((stats.leased, stats.waiting, stats.finished), (1, 1, 0));
    assert_eq!(bench.stats(&bench.pairs).await.put, 0);
    bench.queue.commit(moved(&new), outputs(&bench.pairs, [11])).await.expect("the good lease is still good");
}

pub(super) async fn a_lease_is_used_once(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    let leases = bench.leases(&bench.prompts, 1).await;
    let twice = [moved(&leases), moved(&leases)].concat();
    assert!(matches!(bench.queue.commit(twice, Vec::new()).await, Err(Error::LeaseLost { .. })));
    bench.queue.commit(moved(&leases), Vec::new()).await.expect("nothing had changed");
    assert!(matches!(bench.queue.commit(moved(&leases), Vec::new()).await, Err(Error::LeaseLost { .. })));
    assert_eq!(bench.stats(&bench.prompts).await.finished, 1);
}

pub(super) async fn work_done_twice_is_put_once(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    // A worker put its output, lost its lease, and another one does the same work: the ids are the same.
    bench.queue.commit(Vec::new(), outputs(&bench.pairs, [11])).await.expect("a commit of outputs alone");
    let leases = bench.leases(&bench.prompts, 1).await;
    bench.queue.commit(moved(&leases), outputs(&bench.pairs, [11])).await.expect("a commit");
    let pairs = bench.stats(&bench.pairs).await;
    assert_eq!((pairs.put, pairs.duplicates, pairs.waiting), (1, 1, 1));
}

pub(super) async fn a_full_target_leaves_the_input_leased(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    bench.put(&bench.pairs, 20..20 + CAPACITY).await;
    let leases = bench.leases(&bench.prompts, 1).await;
    let full = bench.queue.commit(moved(&leases), outputs(&bench.pairs, [11])).await;
    assert!(matches!(full, Err(Error::Full { waiting: CAPACITY, .. })), "{full:?}");
    assert_eq!(bench.stats(&bench.prompts).await.leased, 1);
    bench.take(&bench.pairs, 1).await;
    bench.queue.commit(moved(&leases), outputs(&bench.pairs, [11])).await.expect("one place is enough to begin");
    assert_eq!(bench.stats(&bench.pairs).await.waiting, CAPACITY);
}

pub(super) async fn an_output_larger_than_the_capacity_fits(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    bench.put(&bench.pairs, [20]).await;
    let leases = bench.leases(&bench.prompts, 1).await;
    let many = outputs(&bench.pairs, 30..30 + 3 * CAPACITY);
    bench.queue.commit(moved(&leases), many).await.expect("the target was below its capacity");
    assert_eq!(bench.stats(&bench.pairs).await.waiting, 3 * CAPACITY + 1);
}

pub(super) async fn a_commit_waits_for_room(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    bench.put(&bench.pairs, 20..20 + CAPACITY).await;
    let leases = bench.leases(&bench.prompts, 2).await;
    let commit = bench.queue.commit_when_room(moved(&leases[..1]), outputs(&bench.pairs, [11]), LEASE / 2);
    let (committed, taken) = tokio::join!(commit, bench.take(&bench.pairs, 1));
    committed.expect("room was made");
    assert_eq!(taken.len(), 1);
    let commit = bench.queue.commit_when_room(moved(&leases[1..]), outputs(&bench.pairs, [12]), Duration::ZERO);
    assert!(matches!(commit.await, Err(Error::Full { .. })), "the wait has a deadline");
    assert_eq!(bench.stats(&bench.prompts).await.leased, 1);
}
