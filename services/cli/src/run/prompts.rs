//! The stream of prompts: position to task.

use std::sync::Mutex;

use joust_coordinator::PromptSource;
use joust_core::{PromptTask, Purpose, RecordId, RunId, SCHEMA};
use joust_data::PromptSet;

/// A prompt set as a stream: epoch after epoch, each in its own order.
pub struct PromptStream {
    run: RunId,
    set: PromptSet,
    /// The order of the epoch asked for last.
    order: Mutex<(u64, Vec<usize>)>,
}

impl PromptStream {
    /// Starts at position 0.
    pub fn new(run: RunId, set: PromptSet) -> Self {
        let order = Mutex::new((0, set.order(0)));
        Self { run, set, order }
    }
}

impl PromptSource for PromptStream {
    fn task(&self, position: u64) -> PromptTask {
        let (epoch, index) = (position / self.set.len() as u64, (position % self.set.len() as u64) as usize);
        let mut order = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if order.0 != epoch {
            *order = (epoch, self.set.order(epoch));
        }
        let (row, prompt) = &self.set.train()[order.1[index]];
        PromptTask {
            schema: SCHEMA,
            id: RecordId::derive(&[b"prompt", self.run.as_str().as_bytes(), b"train", &position.to_le_bytes()]),
            position,
            epoch,
            row: *row,
            purpose: Purpose::Train,
            prompt: prompt.clone(),
        }
    }
}
