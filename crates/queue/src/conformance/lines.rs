//! Cases: putting, order, capacity, waiting.

use std::time::Duration;

use joust_core::RunId;

use super::{Bench, CAPACITY, LEASE, item, items, items_of};
use crate::{Done, Error, Item, PutReport, Topic};

const LONG: Duration = Duration::from_secs(3600);

pub(super) async fn put_is_idempotent(bench: &Bench) {
    let report = bench.queue.put(&bench.prompts, items([1, 2, 1])).await.expect("a put");
    assert_eq!(report, PutReport { added: 2, duplicates: 1 });
    let known = |duplicates| PutReport { added: 0, duplicates };
    let again = || bench.queue.put(&bench.prompts, items([1, 2]));
    assert_eq!(again().await.expect("a put"), known(2), "waiting");
    let leases = bench.leases(&bench.prompts, 2).await;
    assert_eq!(again().await.expect("a put"), known(2), "leased");
    let done = leases.into_iter().map(|lease| (lease, Done::Moved)).collect();
    bench.queue.commit(done, Vec::new()).await.expect("a commit");
    assert_eq!(again().await.expect("a put"), known(2), "finished");
    assert!(bench.take(&bench.prompts, 9).await.is_empty());
    let stats = bench.stats(&bench.prompts).await;
    assert_eq!((stats.put, stats.duplicates, stats.finished), (2, 7, 2));
}

pub(super) async fn order_is_kept(bench: &Bench) {
    bench.put(&bench.prompts, [5, 3]).await;
    bench.put(&bench.prompts, [4, 1]).await;
    let first = bench.take(&bench.prompts, 3).await;
    assert_eq!(items_of(&first), items([5, 3, 4]), "bodies and trace contexts come back as they were put");
    assert!(first.iter().all(|leased| leased.deliveries == 1));
    let retry = (first[1].lease.clone(), Done::Retry("again".into()));
    bench.queue.commit(vec![retry], Vec::new()).await.expect("a commit");
    assert_eq!(items_of(&bench.take(&bench.prompts, 9).await), items([3, 1]), "a retried item returns to its place");
}

pub(super) async fn a_trace_context_stays_beside_its_record(bench: &Bench) {
    let traced = |number, trace: &str| Item { trace: Some(trace.into()), ..item(number) };
    let (prompt, pair) = ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-1-2-01");
    bench.queue.put(&bench.prompts, vec![traced(1, prompt)]).await.expect("a put");
    bench.queue.put(&bench.prompts, vec![traced(1, "another")]).await.expect("a put");
    let taken = bench.take(&bench.prompts, 1).await;
    assert_eq!(taken[0].item, traced(1, prompt), "a duplicate changes nothing");
    bench
        .queue
        .commit(vec![(taken[0].lease.clone(), Done::Retry("again".into()))], Vec::new())
        .await
        .expect("a commit");
    bench.clock.advance(LEASE);
    let taken = bench.take(&bench.prompts, 1).await;
    assert_eq!(taken[0].item.trace.as_deref(), Some(prompt), "delivered again");
    bench.clock.advance(LEASE * 2);
    let taken = bench.take(&bench.prompts, 1).await;
    assert_eq!(taken[0].item.trace.as_deref(), Some(prompt), "recovered");
    let done = vec![(taken[0].lease.clone(), Done::Moved)];
    let next = vec![(bench.pairs.clone(), traced(2, pair)), (bench.pairs.clone(), Item { trace: None, ..item(4) })];
    bench.queue.commit(done, next).await.expect("a commit");
    let taken = bench.take(&bench.pairs, 2).await;
    let traces: Vec<Option<&str>> = taken.iter().map(|leased| leased.item.trace.as_deref()).collect();
    assert_eq!(traces, [Some(pair), None], "outputs have their own, or none");
}

pub(super) async fn topics_and_runs_are_apart(bench: &Bench) {
    let other = Topic::prompts(&RunId::new("suite-2").expect("a valid name"));
    let named = Topic::new(&bench.run, "people.to-ask").expect("a valid name");
    for topic in [&bench.prompts, &bench.pairs, &other, &named] {
        bench.put(topic, [1]).await;
    }
    assert_eq!(bench.take(&other, 9).await.len(), 1);
    assert_eq!(bench.take(&named, 9).await.len(), 1);
    assert_eq!(bench.stats(&bench.prompts).await.waiting, 1);
    let stats = bench.queue.stats(&bench.run).await.expect("stats");
    assert_eq!(
        stats.topics.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["pairs", "people.to-ask", "prompts"]
    );
    assert!(Topic::new(&bench.run, "a/b").is_err() && Topic::new(&bench.run, "").is_err());
}

pub(super) async fn a_full_topic_pushes_back(bench: &Bench) {
    bench.put(&bench.prompts, 0..3).await;
    let put = |numbers| bench.queue.put(&bench.prompts, items(numbers));
    let full = put(2..5).await.expect_err("two new items do not fit into one place");
    assert!(matches!(full, Error::Full { capacity: CAPACITY, waiting: 3, .. }), "{full}");
    assert_eq!(bench.stats(&bench.prompts).await.put, 3, "nothing of a refused batch is put");
    assert_eq!(put(2..4).await.expect("a known item takes no place"), PutReport { added: 1, duplicates: 1 });
    assert!(put(0..4).await.is_ok(), "a full topic still knows its items");
    assert!(put(4..5).await.is_err());
    bench.take(&bench.prompts, 1).await;
    bench.put(&bench.prompts, [4]).await;
}

pub(super) async fn a_batch_larger_than_the_capacity_fits_when_nothing_waits(bench: &Bench) {
    bench.put(&bench.prompts, 0..CAPACITY + 3).await;
    let full = bench.queue.put(&bench.prompts, items([99])).await;
    assert!(
        matches!(full, Err(Error::Full { capacity: CAPACITY, waiting, .. }) if waiting == CAPACITY + 3),
        "{full:?}"
    );
    assert_eq!(bench.take(&bench.prompts, 99).await.len() as u64, CAPACITY + 3);
    bench.put(&bench.prompts, [99]).await;
}

pub(super) async fn room_is_waited_for(bench: &Bench) {
    let room = |items, wait| bench.queue.wait_for_room(&bench.prompts, items, wait);
    assert!(room(99, Duration::ZERO).await.expect("a look"), "an empty topic takes any batch");
    bench.put(&bench.prompts, 0..CAPACITY).await;
    assert!(!room(1, Duration::ZERO).await.expect("a look"));
    let late = async { bench.clock.advance(Duration::from_secs(5)) };
    let (found, ()) = tokio::join!(room(1, Duration::from_secs(5)), late);
    assert!(!found.expect("a look"), "the wait ends at its deadline");
    let (report, taken) =
        tokio::join!(bench.queue.put_when_room(&bench.prompts, items([7, 8]), LONG), bench.take(&bench.prompts, 2));
    assert_eq!((report.expect("room was made").added, taken.len()), (2, 2));
}

pub(super) async fn a_taker_is_woken_by_a_put(bench: &Bench) {
    let take = bench.queue.take(&bench.prompts, &bench.who, 2, LONG);
    let (taken, ()) = tokio::join!(take, bench.put(&bench.prompts, [1]));
    assert_eq!(items_of(&taken.expect("a take")), items([1]));
}

pub(super) async fn a_taker_gives_up_at_its_deadline(bench: &Bench) {
    let take = bench.queue.take(&bench.prompts, &bench.who, 2, Duration::from_secs(5));
    let late = async { bench.clock.advance(Duration::from_secs(5)) };
    let (taken, ()) = tokio::join!(take, late);
    assert!(taken.expect("a take").is_empty());
    assert!(bench.queue.take(&bench.prompts, &bench.who, 0, LONG).await.expect("a take of nothing").is_empty());
}

pub(super) async fn a_dropped_take_gives_back(bench: &Bench) {
    bench.put(&bench.prompts, [1]).await;
    let taken = tokio::select! {
        biased;
        taken = bench.queue.take(&bench.prompts, &bench.who, 1, LONG) => Some(taken),
        () = std::future::ready(()) => None,
    };
    // A backend that never waits has answered at once; then giving back is up to the consumer.
    if let Some(taken) = taken {
        let leases: Vec<_> = taken.expect("a take").into_iter().map(|leased| leased.lease).collect();
        bench.queue.release(&leases).await.expect("a release");
    }
    let taken = bench.queue.take(&bench.prompts, &bench.who, 1, LONG).await.expect("a take");
    assert_eq!((items_of(&taken), taken[0].deliveries), (vec![item(1)], 1));
    bench.stats(&bench.prompts).await;
}
