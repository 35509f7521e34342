//! The engine's thread and its handle.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use joust_model::Device;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

use crate::{Error, Result, SampleRequest, Sampled, ScoreRequest, batch, score};

/// Handle on the engine; clones share one thread, which ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine(pub(crate) mpsc::Sender<Job>);

#[derive(Debug)]
pub(crate) enum Job {
    Sample { request: SampleRequest, answers: UnboundedSender<Result<Sampled>> },
    Score { request: ScoreRequest, answer: oneshot::Sender<Result<Vec<f32>>> },
}

/// Completions of one request, in the order in which they finish. Dropping it stops the work at the next token.
#[derive(Debug)]
pub struct CompletionStream(UnboundedReceiver<Result<Sampled>>);

impl CompletionStream {
    /// Waits for the next completion; `None` when all are done.
    pub async fn next(&mut self) -> Option<Result<Sampled>> {
        self.0.recv().await
    }

    /// Waits for all completions, ordered by (prompt, sample index).
    ///
    /// # Errors
    /// The first error; [`Error::Stopped`] if fewer than `expected` completions came.
    pub async fn collect(mut self, expected: usize) -> Result<Vec<Sampled>> {
        let mut all = Vec::with_capacity(expected);
        while let Some(sampled) = self.next().await {
            all.push(sampled?);
        }
        if all.len() < expected {
            return Err(Error::Stopped);
        }
        all.sort_by_key(|sampled| (sampled.prompt, sampled.sample_index));
        Ok(all)
    }
}

impl Engine {
    /// Starts the thread. At most `max_rows` answers are decoded together.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system gives no thread.
    pub fn start(device: Device, max_rows: usize) -> Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("joust-engine".into())
            .spawn(move || {
                let _no_grad = tch::no_grad_guard();
                for job in receiver {
                    match job {
                        Job::Sample { request, answers } => sample(&request, &answers, (&device, max_rows.max(1))),
                        // Nobody listening means nobody needs it, here and below.
                        Job::Score { request, answer } => drop(answer.send(guarded(|| score::run(&request, &device)))),
                    }
                }
            })
            .map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Self(sender))
    }

    /// Queues a request behind those that came before.
    pub fn submit(&self, request: SampleRequest) -> CompletionStream {
        let (answers, receiver) = unbounded_channel();
        let rejected = self.0.send(Job::Sample { request, answers });
        if let Err(mpsc::SendError(Job::Sample { answers, .. })) = rejected {
            // The receiver below then yields this error; a closed channel there is impossible, as we hold it.
            let _ = answers.send(Err(Error::Stopped));
        }
        CompletionStream(receiver)
    }

    /// Computes log π of each answer: a sum over its tokens in nats at temperature 1, in the order of the request.
    ///
    /// # Errors
    /// [`Error::Sequence`] for one that the model cannot read; [`Error::Stopped`] if the engine is gone.
    pub async fn score(&self, request: ScoreRequest) -> Result<Vec<f32>> {
        let (answer, receiver) = oneshot::channel();
        self.0.send(Job::Score { request, answer }).map_err(|_| Error::Stopped)?;
        receiver.await.map_err(|_| Error::Stopped)?
    }
}

fn sample(request: &SampleRequest, answers: &UnboundedSender<Result<Sampled>>, (device, max_rows): (&Device, usize)) {
    let emit = |sampled| answers.send(Ok(sampled)).is_ok();
    let run = |range| guarded(|| batch::run(request, range, device, &mut { emit }));
    let done = batch::check(request).and_then(|()| cut(request, max_rows).into_iter().try_for_each(run));
    if let Err(error) = done {
        // Nobody listening means nobody needs it.
        let _ = answers.send(Err(error));
    }
}

/// Makes an error of a panic, so that the thread lives on.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::Failed(panic_message(panic.as_ref()))))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "panic".into())
}

/// Cuts a request into batches of whole prompts with at most `max_rows` answers, one prompt at least.
fn cut(request: &SampleRequest, max_rows: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for (index, prompt) in request.prompts.iter().enumerate() {
        if index > start && rows + prompt.samples.len() > max_rows {
            ranges.push(start..index);
            (start, rows) = (index, 0);
        }
        rows += prompt.samples.len();
    }
    ranges.push(start..request.prompts.len());
    ranges.retain(|range| !range.is_empty());
    ranges
}
