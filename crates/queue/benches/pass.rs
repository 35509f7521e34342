//! How fast small items pass through: `cargo bench -p joust-queue`. Each is put, taken and committed on to a second topic.

use std::time::{Duration, Instant};

use joust_core::{RecordId, RunId};
use joust_queue::{Consumer, Done, Item, Queue, Settings, Topic, open_embedded, open_memory};

const ITEMS: u64 = 32_000;
const BATCH: u64 = 64;
const BODY_BYTES: usize = 1024;

fn item(kind: &[u8], number: u64) -> Item {
    Item { id: RecordId::derive(&[kind, &number.to_le_bytes()]), body: vec![7; BODY_BYTES], trace: None }
}

/// Returns items a second.
async fn pass(queue: &dyn Queue) -> f64 {
    let run = RunId::new("speed").expect("a valid name");
    let (from, to, who) = (Topic::prompts(&run), Topic::rollouts(&run), Consumer::new("speed"));
    let began = Instant::now();
    for batch in 0..ITEMS / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        queue.put(&from, numbers.clone().map(|number| item(b"in", number)).collect()).await.expect("a put");
        let taken = queue.take(&from, &who, BATCH as usize, Duration::ZERO).await.expect("a take");
        let done = taken.into_iter().map(|leased| (leased.lease, Done::Moved)).collect();
        let next = numbers.map(|number| (to.clone(), item(b"out", number))).collect();
        queue.commit(done, next).await.expect("a commit");
    }
    ITEMS as f64 / began.elapsed().as_secs_f64()
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk");
    let memory = open_memory(Settings::default()).expect("a queue in memory");
    let file = open_embedded(&folder.path().join("queue.redb"), Settings::default()).expect("a queue file");
    println!("queue memory: {:.0} items/s", runtime.block_on(pass(&*memory)));
    println!("queue embedded: {:.0} items/s, batches of {BATCH}, 3 syncs a batch", runtime.block_on(pass(&*file)));
}
