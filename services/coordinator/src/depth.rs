//! How many records of a run wait, as a metric.

use std::{sync::Arc, time::Duration};

use joust_core::{RunId, Shutdown};
use joust_queue::Queue;
use joust_telemetry::instruments;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Tells how many records of each topic wait until a stop; ends at once where no metrics are exported.
pub async fn watch_depth(run: RunId, queue: Arc<dyn Queue>, shutdown: Shutdown) {
    if !joust_telemetry::exports_metrics() {
        return;
    }
    while !shutdown.is_triggered() {
        match queue.stats(&run).await {
            Ok(stats) => stats.topics.iter().for_each(|(name, topic)| {
                instruments::queue_depth(run.as_str(), name.as_str(), topic.waiting);
            }),
            // Who works on the queue says so louder.
            Err(error) => tracing::debug!(%run, %error, "the queue's depth is not known"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.wait() => {}
        }
    }
}
