//! Tests of both backends.

use std::{path::Path, sync::Arc};

use crate::{Backend, Clock, Queue, QueueConfig, Settings, conformance, open_with_clock};

fn memory(settings: Settings, clock: Arc<dyn Clock>) -> Arc<dyn Queue> {
    open_with_clock(&QueueConfig { backend: Backend::Memory, settings }, clock).expect("a queue in memory")
}

fn embedded(path: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Arc<dyn Queue> {
    let backend = Backend::Embedded { path: path.to_owned() };
    open_with_clock(&QueueConfig { backend, settings }, clock).expect("a queue file")
}

#[tokio::test]
async fn memory_conforms() {
    conformance::all(&mut |settings, clock| memory(settings, clock)).await;
}

#[tokio::test]
async fn embedded_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut count = 0;
    conformance::all(&mut |settings, clock| {
        count += 1;
        embedded(&folder.path().join(format!("{count}.redb")), settings, clock)
    })
    .await;
}
