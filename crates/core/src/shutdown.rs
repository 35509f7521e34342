//! Telling every task of a process to stop, and why.

use tokio::sync::watch;

/// A clonable switch: one side triggers, every holder can wait for it or look at it.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Shutdown {
    /// Tells every holder to stop; more than once is harmless.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Returns whether a stop was asked for.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until a stop is asked for.
    pub async fn wait(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so waiting cannot fail before the switch turns.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
