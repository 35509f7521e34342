//! A run's prompts: read, checked against the model's context, and as a stream of tasks by position.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::{Context, bail, ensure};
use joust_config::{RunFile, run::OnError as Wanted};
use joust_core::{Outcome, Prompt, PromptTask, Purpose, RecordId, RunId, SCHEMA};
use joust_data::{OnError, PromptSet, SetOptions, Tokenizer, read_prompts};

use crate::{
    PromptSource,
    added::{Added, WithAdded},
    given::Given,
};

/// What prompts must fit into.
pub struct Reader<'a> {
    /// The policy's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The policy's context, in tokens.
    pub context: usize,
}

/// Opens what reads the prompts of the policy in `folder`: its tokenizer and its context.
///
/// # Errors
/// A folder without a tokenizer or a configuration.
pub fn of_policy(folder: &Path) -> anyhow::Result<(Tokenizer, usize)> {
    let json = |path: &Path| -> anyhow::Result<serde_json::Value> {
        let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
    };
    // An adapter's folder names its base, which has the configuration.
    let adapter = folder.join("adapter_config.json");
    let base = match adapter.is_file() {
        true => json(&adapter)?["base_model_name_or_path"].as_str().map(|base| folder.join(base)),
        false => None,
    };
    let base = base.as_deref().unwrap_or(folder);
    let path = base.join("config.json");
    let context = json(&path)?["max_position_embeddings"].as_u64();
    let context = context.with_context(|| format!("{} has no max_position_embeddings", path.display()))?;
    let words = if folder.join("tokenizer.json").is_file() { folder } else { base };
    Ok((Tokenizer::open(words)?, context as usize))
}

/// What a run trains on.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Prompts to answer, with those that are held out; of a run that only trains on given examples their prompts.
    pub prompts: PromptSet,
    /// Given examples, where there are any.
    pub given: Option<Given>,
}

/// Reads what a run trains on.
///
/// # Errors
/// A file that cannot be used, or that leaves nothing.
pub fn read(run: &RunFile, reader: &Reader<'_>) -> anyhow::Result<Inputs> {
    let given = Given::read(run, reader)?;
    let prompts = match (&run.data.prompts, &given) {
        (Some(path), _) => read_prompt_set(run, path, reader)?,
        (None, Some(given)) => given.set().clone(),
        (None, None) => bail!("the run has neither data.prompts nor data.pairs"),
    };
    Ok(Inputs { prompts, given })
}

/// Reads training and held-out prompts.
fn read_prompt_set(run: &RunFile, path: &Path, reader: &Reader<'_>) -> anyhow::Result<PromptSet> {
    let file = |path| reader.file(path, mode(run.data.on_error));
    let eval = run.data.eval_prompts.as_deref().map(file).transpose()?;
    let options = SetOptions { seed: run.seed, shuffle: run.data.shuffle, eval_fraction: run.data.eval_fraction };
    Ok(PromptSet::new(file(path)?, eval, options)?)
}

impl Inputs {
    /// Returns the steps of a run: `learner.steps`, or as many as its epochs over the prompts, or over the given examples where there
    /// is nothing else, need. The places that the last step has left are those of the next epoch's first prompts.
    pub fn steps(&self, run: &RunFile) -> u64 {
        let (rows, places) = self.rows_and_places(run);
        run.learner.optim.steps.unwrap_or_else(|| rows.div_ceil(places))
    }

    /// Returns the rows of all epochs, and how many of them a step takes.
    fn rows_and_places(&self, run: &RunFile) -> (u64, u64) {
        let per_step = u64::from(run.learner.prompts_per_step);
        let given = if run.data.prompts.is_some() { run.data.given_per_step(per_step) } else { 0 };
        (self.prompts.len() as u64 * u64::from(run.data.epochs), per_step.saturating_sub(given).max(1))
    }

    /// Says how the last step is filled up where the epochs do not end with it; `None` where they do, or `learner.steps` says how
    /// many there are.
    pub fn last_step(&self, run: &RunFile) -> Option<String> {
        let (rows, places) = self.rows_and_places(run);
        let left = (places - rows % places) % places;
        (run.learner.optim.steps.is_none() && left > 0).then(|| {
            format!("{rows} rows in steps of {places}: the last step takes {left} rows of another epoch as well")
        })
    }

    /// Returns what is put at each place of the run's stream.
    pub fn stream(self, run: &RunFile) -> Places {
        let per_step = u64::from(run.learner.prompts_per_step);
        let given_per_step = run.data.given_per_step(per_step);
        Places {
            prompts: PromptStream::new(run.name.clone(), self.prompts),
            given: self.given,
            per_step,
            given_per_step,
        }
    }
}

/// A run's stream: of each step's places the first hold given examples, the others prompts.
pub struct Places {
    prompts: PromptStream,
    given: Option<Given>,
    per_step: u64,
    given_per_step: u64,
}

impl Places {
    /// Returns the run's prompts with those that were added between them; of a run with given examples its places, which added prompts
    /// cannot take.
    pub(crate) fn with_added(self, added: Added) -> Arc<dyn PromptSource> {
        match self.given {
            None => Arc::new(WithAdded { stream: self.prompts, added }),
            Some(_) => Arc::new(self),
        }
    }
}

impl PromptSource for Places {
    fn task(&self, position: u64) -> PromptTask {
        let (step, place) = (position / self.per_step, position % self.per_step);
        let index = step * (self.per_step - self.given_per_step) + place.saturating_sub(self.given_per_step);
        PromptTask { id: id_at(self.prompts.run(), position), position, ..self.prompts.task(index) }
    }

    fn given(&self, position: u64) -> anyhow::Result<Option<Outcome>> {
        let (step, place) = (position / self.per_step, position % self.per_step);
        match &self.given {
            Some(given) if place < self.given_per_step => {
                given.outcome(self.prompts.run(), position, step * self.given_per_step + place).map(Some)
            }
            _ => Ok(None),
        }
    }
}

pub(crate) fn mode(wanted: Wanted) -> OnError {
    match wanted {
        Wanted::Fail => OnError::Fail,
        Wanted::Skip => OnError::Skip,
    }
}

/// Prints how many rows were left out, by reason.
pub(crate) fn print_skipped(path: &Path, skipped: BTreeMap<String, usize>) {
    for (reason, count) in skipped {
        eprintln!("{}: skipped {count} rows: {reason}", path.display());
    }
}

impl Reader<'_> {
    /// Says why the model cannot read and answer a prompt; `None` if it can.
    ///
    /// # Errors
    /// A prompt that does not tokenise.
    pub(crate) fn problem(&self, prompt: &Prompt) -> joust_data::Result<Option<String>> {
        let tokens = self.tokenizer.encode_prompt(prompt)?.len();
        let fits = tokens > 0 && tokens < self.context;
        let problem =
            || format!("the prompt has {tokens} tokens, the model's context holds {}; shorten it", self.context);
        Ok((!fits).then(problem))
    }

    pub(crate) fn file(&self, path: &Path, mode: OnError) -> anyhow::Result<Vec<(u64, Prompt)>> {
        let (prompts, mut skipped) = read_prompts(path, mode)?;
        let kept = self.fitting(prompts, path, (mode, &mut skipped))?;
        print_skipped(path, skipped);
        ensure!(!kept.is_empty(), "{} holds no prompt that fits the model's context", path.display());
        Ok(kept)
    }

    /// Leaves prompts that the model can read and answer; others end the reading or are counted.
    fn fitting(
        &self,
        prompts: Vec<(u64, Prompt)>,
        path: &Path,
        (mode, skipped): (OnError, &mut BTreeMap<String, usize>),
    ) -> anyhow::Result<Vec<(u64, Prompt)>> {
        let mut kept = Vec::with_capacity(prompts.len());
        for (row, prompt) in prompts {
            let Some(problem) = self.problem(&prompt)? else {
                kept.push((row, prompt));
                continue;
            };
            ensure!(
                mode == OnError::Skip,
                "{}:{}: {problem}, or set data.on_error = \"skip\"",
                path.display(),
                row + 1
            );
            *skipped.entry("the prompt does not fit the context".into()).or_default() += 1;
        }
        Ok(kept)
    }
}

/// The rows of a set epoch after epoch, each in its own order.
#[derive(Debug)]
pub(crate) struct Epochs {
    set: PromptSet,
    /// The order of the epoch asked for last.
    order: Mutex<(u64, Vec<usize>)>,
}

impl Epochs {
    pub(crate) fn new(set: PromptSet) -> Self {
        let order = Mutex::new((0, set.order(0)));
        Self { set, order }
    }

    /// Returns the epoch and the row at `index` of the stream, from 0.
    pub(crate) fn at(&self, index: u64) -> (u64, &(u64, Prompt)) {
        let (epoch, place) = (index / self.set.len() as u64, (index % self.set.len() as u64) as usize);
        let mut order = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if order.0 != epoch {
            *order = (epoch, self.set.order(epoch));
        }
        (epoch, &self.set.train()[order.1[place]])
    }
}

/// A prompt set as a stream: epoch after epoch, each in its own order.
pub struct PromptStream {
    run: RunId,
    epochs: Epochs,
}

impl PromptStream {
    /// Starts at position 0.
    pub fn new(run: RunId, set: PromptSet) -> Self {
        Self { run, epochs: Epochs::new(set) }
    }
}

impl PromptStream {
    /// Returns the run.
    pub(crate) fn run(&self) -> &RunId {
        &self.run
    }

    /// Returns the first row that no prompt has.
    pub(crate) fn rows(&self) -> u64 {
        self.epochs.set.train().iter().map(|(row, _)| row + 1).max().unwrap_or_default()
    }
}

/// Names the prompt at a position of a run.
pub(crate) fn id_at(run: &RunId, position: u64) -> RecordId {
    RecordId::derive(&[b"prompt", run.as_str().as_bytes(), b"train", &position.to_le_bytes()])
}

impl PromptSource for PromptStream {
    fn task(&self, position: u64) -> PromptTask {
        let (epoch, (row, prompt)) = self.epochs.at(position);
        PromptTask {
            schema: SCHEMA,
            id: id_at(&self.run, position),
            position,
            epoch,
            row: *row,
            purpose: Purpose::Train,
            prompt: prompt.clone(),
        }
    }
}
