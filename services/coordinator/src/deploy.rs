//! The queue that a deployment names.

use std::sync::Arc;

use anyhow::{Context, ensure};
use joust_config::{Deployment, QueueKind};
use joust_queue::{Queue, RedisConfig, Settings, open_redis};

/// Opens the queue that all services of a cluster share.
///
/// # Errors
/// A deployment without a Redis, or a server that cannot be used.
pub async fn open_queue(deployment: &Deployment) -> anyhow::Result<Arc<dyn Queue>> {
    let queue = &deployment.queue;
    ensure!(queue.kind == QueueKind::Redis, "a cluster needs queue.kind = \"redis\" in the deployment file");
    let config = RedisConfig {
        password_file: deployment.auth.redis_password_file.clone(),
        ca: queue.ca.clone(),
        allow_unsafe: queue.allow_unsafe,
        ..RedisConfig::new(queue.url.clone().context("the deployment file names no queue.url")?)
    };
    Ok(open_redis(&config, Settings::shared(), None).await?)
}
