//! Waking who waits: a connection of its own, made when somebody first waits, that hears what changed.
//!
//! A message that is lost costs no more than [`LOOK`], after which every waiter looks for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::config::RedisConfig;
use crate::Topic;

/// Longest sleep of a waiter that nobody wakes.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Pause before the connection is made again, and longest wait for it.
const PAUSE: Duration = Duration::from_secs(1);
/// Where the scripts tell of changes, in all runs of a server's.
const CHANNELS: &str = "{joust:*}:changed";

/// What a waiter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Items,
    Room,
}

/// The ears of one queue.
pub(super) struct Bells {
    shared: Arc<Shared>,
    config: RedisConfig,
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// One bell for each thing that somebody waits for, by the message that rings it.
struct Shared {
    by_message: Mutex<HashMap<String, Weak<Notify>>>,
    hears: watch::Sender<bool>,
}

impl Bells {
    pub(super) fn new(config: RedisConfig) -> Self {
        let shared = Shared { by_message: Mutex::default(), hears: watch::Sender::new(false) };
        Self { shared: Arc::new(shared), config, listener: Mutex::default() }
    }

    /// Returns the bell that rings when there may be what is wanted of a topic.
    pub(super) fn bell(&self, topic: &Topic, wanted: Wanted) -> Arc<Notify> {
        let what = if wanted == Wanted::Items { "items" } else { "room" };
        let message = format!("{{joust:{}}}:changed {} {what}", topic.run, topic.name);
        let mut bells = self.shared.by_message.lock();
        if let Some(bell) = bells.get(&message).and_then(Weak::upgrade) {
            return bell;
        }
        bells.retain(|_, bell| bell.strong_count() > 0);
        let bell = Arc::new(Notify::new());
        bells.insert(message, Arc::downgrade(&bell));
        bell
    }

    /// Listens from now on; returns once the server is heard, or after [`LOOK`] without it.
    pub(super) async fn listen(&self) {
        let mut hears = self.shared.hears.subscribe();
        {
            let mut listener = self.listener.lock();
            // It ends with the runtime that it was begun on.
            if listener.as_ref().is_none_or(JoinHandle::is_finished) {
                self.shared.hears.send_replace(false);
                *listener = Some(tokio::spawn(listen(self.config.clone(), self.shared.clone())));
            }
        }
        // Whoever is not heard is looked at again and again.
        let _ = timeout(LOOK, hears.wait_for(|hears| *hears)).await;
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get_mut().take() {
            listener.abort();
        }
    }
}

/// Hears messages for as long as the queue is open.
async fn listen(config: RedisConfig, shared: Arc<Shared>) {
    loop {
        if let Err(reason) = listen_once(&config, &shared).await {
            tracing::debug!(server = config.server(), reason, "redis is not heard, waiters look for themselves");
        }
        shared.hears.send_replace(false);
        sleep(PAUSE).await;
    }
}

async fn listen_once(config: &RedisConfig, shared: &Shared) -> Result<(), String> {
    let client = config.client().map_err(|error| error.to_string())?;
    let connected = timeout(PAUSE, client.get_async_pubsub()).await.map_err(|error| error.to_string())?;
    let mut ears = connected.map_err(|error| error.to_string())?;
    ears.psubscribe(CHANNELS).await.map_err(|error| error.to_string())?;
    shared.hears.send_replace(true);
    // What was said while nobody listened is made up for.
    shared.by_message.lock().values().filter_map(Weak::upgrade).for_each(|bell| bell.notify_waiters());
    let mut messages = ears.into_on_message();
    while let Some(message) = messages.next().await {
        let Ok(what) = std::str::from_utf8(message.get_payload_bytes()) else { continue };
        let message = format!("{} {what}", message.get_channel_name());
        if let Some(bell) = shared.by_message.lock().get(&message).and_then(Weak::upgrade) {
            bell.notify_waiters();
        }
    }
    Err("the connection ended".into())
}
