//! A thread that owns the trainer: tensor work blocks, tokio's threads must not.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

use crate::{Error, Result};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Handle on a thread that owns `S`.
pub(crate) struct Worker<S>(mpsc::Sender<Job<S>>);

impl<S: Send + 'static> Worker<S> {
    /// Moves `state` to a thread of its own.
    ///
    /// # Errors
    /// [`Error::Worker`] if the system gives no thread.
    pub(crate) fn start(name: &str, mut state: S) -> Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job<S>>();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || receiver.into_iter().for_each(|job| job(&mut state)))
            .map_err(|error| Error::Worker(error.to_string()))?;
        Ok(Self(sender))
    }

    /// Runs `work` on the thread and waits for its result.
    ///
    /// # Errors
    /// [`Error::Worker`] if the work panicked.
    pub(crate) async fn call<R: Send + 'static>(&self, work: impl FnOnce(&mut S) -> R + Send + 'static) -> Result<R> {
        let (sender, receiver) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            let result = catch_unwind(AssertUnwindSafe(|| work(state))).map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
            });
            let _ = sender.send(result); // a caller that went away wants no answer
        });
        let gone = || Error::Worker("it ended".into());
        self.0.send(job).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?.map_err(Error::Worker)
    }
}
