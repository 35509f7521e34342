//! What holds across processes: kills at any moment, files held, damaged or out of room, records that end their worker.
//!
//! The tests start this binary again as the process to be killed. They know the queue only by its public interface.

mod child;
mod crash;
mod files;
mod model;
mod script;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use joust_queue::{Backend, Clock, Item, Queue, QueueConfig, Result, Settings, open_with_clock};

/// A clock that stands still, so that only the end of a process ends a lease.
struct StillClock;

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep_until(&self, _: Duration) {
        std::future::pending().await
    }
}

fn settings() -> Settings {
    Settings { max_deliveries: 2, max_crashes: 3, ..Settings::default() }
}

fn open(path: &Path) -> Result<Arc<dyn Queue>> {
    let backend = Backend::Embedded { path: path.to_owned() };
    open_with_clock(&QueueConfig { backend, settings: settings() }, Arc::new(StillClock))
}

fn item(number: u64) -> Item {
    sized_item(number, 0)
}

/// Makes an item whose body is its number and so many bytes more.
fn sized_item(number: u64, bytes: usize) -> Item {
    let id = joust_core::RecordId::derive(&[&number.to_be_bytes()]);
    Item { id, body: [&number.to_be_bytes()[..], &vec![7; bytes]].concat(), trace: None }
}

fn number_of(item: &Item) -> u64 {
    u64::from_be_bytes(*item.body.first_chunk().expect("bodies begin with their number"))
}

fn run_to_end<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}
