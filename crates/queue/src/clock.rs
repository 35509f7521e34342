//! Time as the queue sees it, so that tests move it by hand.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

/// A clock that never goes backwards; its zero is arbitrary, as leases do not outlive the process.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since the clock's zero.
    fn now(&self) -> Duration;

    /// Waits until [`Clock::now`] has reached `at`.
    async fn sleep_until(&self, at: Duration);
}

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep_until(&self, at: Duration) {
        match self.0.checked_add(at) {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// A clock that moves only when a test says so.
#[cfg(any(test, feature = "conformance"))]
#[derive(Debug, Default)]
pub struct ManualClock(tokio::sync::watch::Sender<Duration>);

#[cfg(any(test, feature = "conformance"))]
impl ManualClock {
    /// Moves the time forward and wakes who waits for it.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

#[cfg(any(test, feature = "conformance"))]
#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.0.borrow()
    }

    async fn sleep_until(&self, at: Duration) {
        // The sender lives in `self`, so waiting cannot fail before the time comes.
        let _ = self.0.subscribe().wait_for(|now| *now >= at).await;
    }
}
