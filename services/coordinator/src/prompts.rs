//! A run's prompts: read, checked against the model's context, and as a stream of tasks by position.

use std::{collections::BTreeMap, fs, path::Path, sync::Mutex};

use anyhow::{Context, ensure};
use joust_config::{RunFile, run::OnError as Wanted};
use joust_core::{Prompt, PromptTask, Purpose, RecordId, RunId, SCHEMA};
use joust_data::{OnError, PromptSet, SetOptions, Tokenizer, read_prompts};

use crate::PromptSource;

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

/// Reads training and held-out prompts.
///
/// # Errors
/// A prompt file that cannot be used, or that leaves nothing.
pub fn read(run: &RunFile, reader: &Reader<'_>) -> anyhow::Result<PromptSet> {
    let file = |path| reader.file(path, mode(run.data.on_error));
    let eval = run.data.eval_prompts.as_deref().map(file).transpose()?;
    let options = SetOptions { seed: run.seed, shuffle: run.data.shuffle, eval_fraction: run.data.eval_fraction };
    Ok(PromptSet::new(file(&run.data.prompts)?, eval, options)?)
}

/// Returns the steps of a run: `learner.steps`, or what the epochs over so many prompts give.
///
/// # Errors
/// Fewer prompts than a step takes.
pub fn steps(run: &RunFile, prompts: u64) -> anyhow::Result<u64> {
    let per_step = u64::from(run.learner.prompts_per_step);
    let steps = run.learner.optim.steps.unwrap_or(prompts * u64::from(run.data.epochs) / per_step);
    ensure!(
        steps > 0,
        "{prompts} training prompts x data.epochs = {} are fewer than learner.prompts_per_step = {per_step}; set learner.steps or more epochs",
        run.data.epochs
    );
    Ok(steps)
}

fn mode(wanted: Wanted) -> OnError {
    match wanted {
        Wanted::Fail => OnError::Fail,
        Wanted::Skip => OnError::Skip,
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

    fn file(&self, path: &Path, mode: OnError) -> anyhow::Result<Vec<(u64, Prompt)>> {
        let (prompts, mut skipped) = read_prompts(path, mode)?;
        let kept = self.fitting(prompts, path, (mode, &mut skipped))?;
        for (reason, count) in skipped {
            eprintln!("{}: skipped {count} rows: {reason}", path.display());
        }
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

impl PromptStream {
    /// Returns the run.
    pub(crate) fn run(&self) -> &RunId {
        &self.run
    }

    /// Returns the first row that no prompt has.
    pub(crate) fn rows(&self) -> u64 {
        self.set.train().iter().map(|(row, _)| row + 1).max().unwrap_or_default()
    }
}

/// Names the prompt at a position of a run.
pub(crate) fn id_at(run: &RunId, position: u64) -> RecordId {
    RecordId::derive(&[b"prompt", run.as_str().as_bytes(), b"train", &position.to_le_bytes()])
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
            id: id_at(&self.run, position),
            position,
            epoch,
            row: *row,
            purpose: Purpose::Train,
            prompt: prompt.clone(),
        }
    }
}
