//! Cases: leases, retries, dead letters.

use std::{collections::BTreeMap, time::Duration};

use joust_core::RecordId;

use super::{Bench, LEASE, item, items, items_of};
use crate::{Done, Error, Lease};

async fn finish(bench: &Bench, lease: &Lease, done: Done) -> crate::Result<()> {
    bench.queue.commit(vec![(lease.clone(), done)], Vec::new()).await
}

pub(super) async fn a_lease_runs_out_and_is_recovered(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    let slow = bench.take(&bench.prompts, 1).await;
    bench.clock.advance(LEASE - Duration::from_millis(1));
    assert_eq!(items_of(&bench.take(&bench.prompts, 9).await), items([2]), "the lease is not over yet");
    bench.clock.advance(Duration::from_millis(1));
    let second = bench.take(&bench.prompts, 9).await;
    assert_eq!((items_of(&second), second[0].deliveries), (items([1]), 2));
    let late = finish(bench, &slow[0].lease, Done::Moved).await;
    assert!(matches!(late, Err(Error::LeaseLost { id, .. }) if id == item(1).id), "{late:?}");
    finish(bench, &second[0].lease, Done::Moved).await.expect("the new lease is good");
    let stats = bench.stats(&bench.prompts).await;
    assert_eq!((stats.expired, stats.finished, stats.leased), (1, 1, 1));
    assert_eq!(stats.holders, BTreeMap::from([("suite-0".into(), 1)]));
}

pub(super) async fn a_taker_is_woken_by_an_expiry(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    bench.take(&bench.prompts, 1).await;
    let take = bench.queue.take(&bench.prompts, &bench.who, 1, LEASE * 100);
    let late = async { bench.clock.advance(LEASE) };
    let (taken, ()) = tokio::join!(take, late);
    assert_eq!(taken.expect("a take")[0].deliveries, 2);
}

pub(super) async fn a_late_holder_may_finish_what_nobody_took(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    let leases = bench.leases(&bench.prompts, 1).await;
    bench.clock.advance(LEASE * 2);
    bench.queue.renew(&leases).await.expect("nobody took it");
    bench.clock.advance(LEASE * 2);
    finish(bench, &leases[0], Done::Moved).await.expect("nobody took it");
    assert_eq!(bench.stats(&bench.prompts).await.finished, 1);
}

pub(super) async fn renewal_keeps_an_item(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    let leases = bench.leases(&bench.prompts, 1).await;
    for _ in 0..5 {
        bench.clock.advance(LEASE * 2 / 3);
        bench.queue.renew(&leases).await.expect("the lease is good");
        assert!(bench.take(&bench.prompts, 1).await.is_empty());
    }
    bench.clock.advance(LEASE);
    assert_eq!(bench.take(&bench.prompts, 1).await.len(), 1, "a renewal lasts one lease");
}

pub(super) async fn renewal_is_all_or_nothing(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    let leases = bench.leases(&bench.prompts, 2).await;
    finish(bench, &leases[1], Done::Moved).await.expect("a commit");
    bench.clock.advance(LEASE / 2);
    assert!(matches!(bench.queue.renew(&leases).await, Err(Error::LeaseLost { .. })));
    bench.clock.advance(LEASE / 2);
    assert_eq!(bench.take(&bench.prompts, 9).await.len(), 1, "the good lease was not renewed with the lost one");
}

pub(super) async fn a_released_item_counts_as_untaken(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    for _ in 0..9 {
        let taken = bench.take(&bench.prompts, 1).await;
        assert_eq!((items_of(&taken), taken[0].deliveries), (items([1]), 1));
        bench.queue.release(&[taken[0].lease.clone()]).await.expect("a release");
        assert!(matches!(bench.queue.release(&[taken[0].lease.clone()]).await, Err(Error::LeaseLost { .. })));
    }
    assert_eq!(bench.stats(&bench.prompts).await.waiting, 2);
}

pub(super) async fn an_item_that_always_expires_dies(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    for delivery in 1..=3 {
        let taken = bench.take(&bench.prompts, 1).await;
        assert_eq!((items_of(&taken), taken[0].deliveries), (items([1]), delivery));
        bench.clock.advance(LEASE);
    }
    assert_eq!(items_of(&bench.take(&bench.prompts, 9).await), items([2]));
    let stats = bench.stats(&bench.prompts).await;
    assert_eq!((stats.dead.values().sum::<u64>(), stats.expired), (1, 3));
    assert!(bench.queue.dead(&bench.prompts).await.expect("dead letters")[0].reason.contains("lease ran out"));
}

pub(super) async fn retries_end_in_the_dead_letters(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    for delivery in 1..=3 {
        let taken = bench.take(&bench.prompts, 1).await;
        assert_eq!(taken[0].deliveries, delivery, "a retry returns at once");
        finish(bench, &taken[0].lease, Done::Retry(format!("judge down {delivery}"))).await.expect("a commit");
    }
    assert!(bench.take(&bench.prompts, 1).await.is_empty());
    let dead = bench.queue.dead(&bench.prompts).await.expect("dead letters");
    assert_eq!((dead.len(), &dead[0].item, dead[0].deliveries), (1, &item(1), 3));
    assert_eq!(dead[0].reason, "judge down 3");
    let stats = bench.stats(&bench.prompts).await;
    assert_eq!((stats.retried, stats.dead), (3, BTreeMap::from([("judge down 3".into(), 1)])));
    assert_eq!(
        bench.queue.put(&bench.prompts, items([1])).await.expect("a put").duplicates,
        1,
        "a dead id stays known"
    );
}

pub(super) async fn dead_letters_are_requeued(bench: &Bench) {
    bench.put(&bench.prompts, [1, 2]).await;
    for _ in 0..3 {
        let taken = bench.take(&bench.prompts, 1).await;
        finish(bench, &taken[0].lease, Done::Retry("no".into())).await.expect("a commit");
    }
    let requeue = async |ids: &[RecordId]| bench.queue.requeue(&bench.prompts, ids).await;
    for wrong in [item(2).id, item(77).id] {
        let refused = requeue(&[item(1).id, wrong]).await;
        assert!(matches!(refused, Err(Error::NotDead { id, .. }) if id == wrong), "{refused:?}");
    }
    assert_eq!(bench.stats(&bench.prompts).await.waiting, 1, "a refused requeue changes nothing");
    requeue(&[item(1).id]).await.expect("it is dead");
    let taken = bench.take(&bench.prompts, 9).await;
    assert_eq!((items_of(&taken), taken[0].deliveries), (items([1, 2]), 1), "it is back in its place, as new");
    assert!(bench.stats(&bench.prompts).await.dead.is_empty());
}
