//! The engine's thread and its handle.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use joust_model::Device;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{Error, Result, SampleRequest, Sampled, batch};

/// Handle on the engine; clones share one thread, which ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine(mpsc::Sender<Job>);

#[derive(Debug)]
struct Job {
    request: SampleRequest,
    answers: UnboundedSender<Result<Sampled>>,
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
                    serve(job, &device, max_rows.max(1));
                }
            })
            .map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Self(sender))
    }

    /// Queues a request behind those that came before.
    pub fn submit(&self, request: SampleRequest) -> CompletionStream {
        let (answers, receiver) = unbounded_channel();
        let rejected = self.0.send(Job { request, answers });
        if let Err(mpsc::SendError(job)) = rejected {
            // The receiver below then yields this error; a closed channel there is impossible, as we hold it.
            let _ = job.answers.send(Err(Error::Stopped));
        }
        CompletionStream(receiver)
    }
}

fn serve(Job { request, answers }: Job, device: &Device, max_rows: usize) {
    if let Err(error) = batch::check(&request) {
        let _ = answers.send(Err(error)); // nobody listening means nobody needs it
        return;
    }
    for range in cut(&request, max_rows) {
        let mut emit = |sampled| answers.send(Ok(sampled)).is_ok();
        let done = catch_unwind(AssertUnwindSafe(|| batch::run(&request, range, device, &mut emit)));
        let failure = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(panic) => Error::Failed(panic_message(panic.as_ref())),
        };
        let _ = answers.send(Err(failure));
        return;
    }
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
