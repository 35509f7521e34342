//! Where a run's records wait: a file in its output folder, or a Redis that the command line names.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use joust_core::RunId;
use joust_queue::{Queue, RedisConfig, Settings, open_embedded, open_redis};

use crate::args::QueueArgs;

impl QueueArgs {
    /// Returns where the Redis is and how to get in, if the queue is on one.
    pub fn redis(&self) -> Option<RedisConfig> {
        let config = RedisConfig {
            password_file: self.redis_password_file.clone(),
            ca: self.redis_ca.clone(),
            allow_unsafe: self.redis_allow_unsafe,
            ..RedisConfig::new(self.redis.as_ref()?)
        };
        Some(config)
    }
}

/// Opens the queue in a run's folder.
///
/// # Errors
/// A file that cannot be used.
pub fn in_folder(dir: &Path) -> anyhow::Result<Arc<dyn Queue>> {
    // One process holds the queue's file alone: leases only tell its own tasks apart, and end with it.
    let settings = Settings { lease: Duration::from_secs(3600), ..Settings::default() };
    Ok(open_embedded(&dir.join("queue.redb"), settings)?)
}

/// Opens a run's queue on a Redis.
///
/// # Errors
/// A server that cannot be used, or that holds records of a run of this name which is not resumed.
pub async fn connect(config: &RedisConfig, run: &RunId, resume: bool) -> anyhow::Result<Arc<dyn Queue>> {
    let queue = open_redis(config, Settings::shared(), None).await?;
    ensure!(
        resume || queue.stats(run).await?.topics.is_empty(),
        "redis at {} holds records of a run {:?} already; add --resume to go on with it, set another name, or take another \
         database of the server",
        config.server(),
        run.to_string()
    );
    Ok(queue)
}

/// Holds an output folder for one process at a time.
///
/// # Errors
/// A folder that another process holds.
pub fn lock(dir: &Path) -> anyhow::Result<fs::File> {
    let path = dir.join(".lock");
    let file = fs::File::create(&path).with_context(|| format!("failed to write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("output folder {} is in use by another process; stop that run first", dir.display())
        }
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("failed to lock {}", path.display())),
    }
}
