//! Tests of working under a lease.

use std::{sync::Arc, time::Duration};

use joust_core::{RecordId, RunId};
use tokio::time::sleep;

use crate::{Consumer, Done, Error, Item, Leased, Queue, Settings, Topic, holding, open_memory};

const LEASE: Duration = Duration::from_secs(9);

async fn leased() -> (Arc<dyn Queue>, Leased) {
    let queue = open_memory(Settings { lease: LEASE, ..Settings::default() }).expect("a queue");
    let topic = Topic::prompts(&RunId::new("held").expect("a valid name"));
    let item = Item { id: RecordId::derive(&[b"held"]), body: Vec::new(), trace: None };
    queue.put(&topic, vec![item]).await.expect("a put");
    let taken = queue.take(&topic, &Consumer::new("a"), 1, Duration::ZERO).await.expect("a take").remove(0);
    (queue, taken)
}

#[tokio::test(start_paused = true)]
async fn work_keeps_its_leases() {
    let (queue, held) = leased().await;
    let leases = [held.lease.clone()];
    let other = async {
        let taken = queue.take(&held.lease.topic, &Consumer::new("b"), 1, LEASE * 4).await.expect("a take");
        assert!(taken.is_empty(), "the lease is held");
    };
    let (done, ()) = tokio::join!(holding(&*queue, &leases, sleep(LEASE * 5)), other);
    done.expect("the work ends");
    queue.commit(vec![(held.lease.clone(), Done::Moved)], Vec::new()).await.expect("a good lease");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_the_work() {
    let (queue, held) = leased().await;
    let leases = [held.lease.clone()];
    queue.release(&leases).await.expect("a release");
    let lost = holding(&*queue, &leases, std::future::pending::<()>()).await;
    assert!(matches!(&lost, Err(Error::LeaseLost { id, .. }) if *id == held.item.id), "{lost:?}");
}
