//! A thread that owns the trainer: tensor work blocks, tokio's threads must not.

use std::{
    any::Any,
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
            let result = catch_unwind(AssertUnwindSafe(|| work(state))).map_err(|panic| explained(&*panic));
            let _ = sender.send(result); // a caller that went away wants no answer
        });
        let gone = || Error::Worker("it ended".into());
        self.0.send(job).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?.map_err(Error::Worker)
    }
}

/// Returns the message of a panic; where libtorch found no memory, with what to lower.
pub(crate) fn explained(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let message = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    let memory = ["can't allocate memory", "out of memory"].iter().any(|words| message.contains(words));
    if !memory {
        return message.to_owned();
    }
    format!(
        "{message}\nout of memory: lower learner.micro_batch or sampling.max_new_tokens, set learner.activation_checkpointing, or train policy.lora; \
         `joust run --dry-run` prints what takes how much"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tensor_that_no_memory_holds_says_what_to_lower() {
        let worker = Worker::start("test", ()).expect("a thread");
        let huge = |(): &mut ()| drop(tch::Tensor::zeros([1 << 48], tch::kind::FLOAT_CPU));
        let error = worker.call(huge).await.expect_err("a petabyte").to_string();
        assert!(error.contains("lower learner.micro_batch"), "{error}");
        let error = worker.call(|(): &mut ()| panic!("other")).await.expect_err("it panicked").to_string();
        assert!(error.contains("other") && !error.contains("lower"), "{error}");
        assert_eq!(worker.call(|(): &mut ()| 3).await.expect("it goes on"), 3);
    }
}
