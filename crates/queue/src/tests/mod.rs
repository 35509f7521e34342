//! Tests of the backends.

mod crash;
mod files;
mod holding;
mod model;
mod redis;
mod redis_faults;

use std::{path::Path, sync::Arc, time::Duration};

use crate::{Backend, Clock, ManualClock, Queue, QueueConfig, Settings, conformance, open_with_clock};

fn memory(settings: Settings, clock: Arc<dyn Clock>) -> Arc<dyn Queue> {
    open_with_clock(&QueueConfig { backend: Backend::Memory, settings }, clock).expect("a queue in memory")
}

fn embedded(path: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Arc<dyn Queue> {
    let backend = Backend::Embedded { path: path.to_owned() };
    open_with_clock(&QueueConfig { backend, settings }, clock).expect("a queue file")
}

/// A waiter that is never woken fails instead of hanging.
async fn in_time<T>(suite: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), suite).await.expect("the suite ends")
}

#[tokio::test]
async fn memory_conforms() {
    in_time(conformance::all(&mut |settings, clock| memory(settings, clock))).await;
}

#[tokio::test]
async fn embedded_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut count = 0;
    let mut open = |settings, clock: Arc<ManualClock>| {
        count += 1;
        embedded(&folder.path().join(format!("{count}.redb")), settings, clock)
    };
    in_time(conformance::all(&mut open)).await;
}
