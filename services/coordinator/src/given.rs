//! Given preferences, rankings and single answers: rows of `data.pairs` as outcomes that nobody answers or judges.

use std::{path::Path, sync::Arc};

use anyhow::{Context, ensure};
use joust_config::{
    RunFile,
    run::{LossSpec, PairsFormat, Reads},
};
use joust_core::{
    Answer, Example, ExampleSource, Finish, Outcome, Player, Prompt, Purpose, RecordId, Reply, RunId, SCHEMA, Target,
};
use joust_data::{
    Format, OnError, PreferenceOptions, PromptSet, SetOptions, Skipped, Tokenizer, read_preferences, read_rankings,
    read_unpaired,
};

use crate::prompts::{Epochs, Reader, mode, print_skipped};

/// A row: a prompt with its answers, best first.
#[derive(Debug, Clone)]
struct Row {
    prompt: Prompt,
    answers: Vec<Reply>,
    /// Mean probability of each answer to beat all, itself counted as one half.
    win_rates: Vec<f64>,
}

/// The rows of a file that the policy can read, by position among the places that they take.
#[derive(Debug, Clone)]
pub struct Given {
    rows: Arc<Vec<Row>>,
    /// Their prompts, of which some are held out.
    set: PromptSet,
    epochs: Arc<Epochs>,
    tokenizer: Arc<Tokenizer>,
    /// Whether the loss reads pairs; else it reads a prompt's answers together.
    pairs: bool,
}

impl Row {
    /// Makes a row of answers, best first.
    fn ranked(prompt: Prompt, answers: Vec<Reply>) -> Self {
        let k = answers.len() as f64;
        let win_rates = (0..answers.len()).map(|at| (k - at as f64 - 0.5) / k).collect();
        Self { prompt, answers, win_rates }
    }
}

fn format_of(format: PairsFormat) -> Format {
    match format {
        PairsFormat::Ultrafeedback => Format::UltraFeedback,
        PairsFormat::Hh => Format::Hh,
        PairsFormat::Helpsteer => Format::HelpSteer,
        PairsFormat::Oasst => Format::Oasst,
        PairsFormat::CodeUltrafeedback => Format::CodeUltraFeedback,
        PairsFormat::Trl | PairsFormat::Unpaired | PairsFormat::Ranked => Format::Trl,
    }
}

/// Reads the rows of a file.
fn read_rows(path: &Path, format: PairsFormat, on_error: OnError) -> joust_data::Result<(Vec<Row>, Skipped)> {
    match format {
        PairsFormat::Unpaired => {
            let (rows, skipped) = read_unpaired(path, on_error)?;
            let row = |row: joust_data::Unpaired| Row {
                prompt: row.prompt,
                answers: vec![row.completion],
                win_rates: vec![f64::from(u8::from(row.label))],
            };
            Ok((rows.into_iter().map(row).collect(), skipped))
        }
        PairsFormat::Ranked => {
            let (rows, skipped) = read_rankings(path, on_error)?;
            Ok((rows.into_iter().map(|row| Row::ranked(row.prompt, row.completions)).collect(), skipped))
        }
        _ => {
            let options = PreferenceOptions { format: format_of(format), ..PreferenceOptions::new(on_error) };
            let (rows, skipped) = read_preferences(path, &options)?;
            let row = |row: joust_data::Preference| Row::ranked(row.prompt, vec![row.chosen, row.rejected]);
            Ok((rows.into_iter().map(row).collect(), skipped))
        }
    }
}

impl Given {
    /// Reads the given rows of a run; `None` where it has none.
    ///
    /// # Errors
    /// A file that cannot be used, or that leaves nothing.
    pub fn read(run: &RunFile, reader: &Reader<'_>) -> anyhow::Result<Option<Self>> {
        let Some(path) = &run.data.pairs else { return Ok(None) };
        let on_error = mode(run.data.on_error);
        let (rows, mut skipped) = read_rows(path, run.data.pairs_format, on_error)?;
        let mut kept = Vec::with_capacity(rows.len());
        for (index, row) in rows.into_iter().enumerate() {
            match problem(reader, &row)? {
                None => kept.push(row),
                Some(problem) => {
                    ensure!(
                        on_error == OnError::Skip,
                        "{}: example {}: {problem}, or set data.on_error = \"skip\"",
                        path.display(),
                        index + 1
                    );
                    *skipped.entry("it does not fit the context".into()).or_default() += 1;
                }
            }
        }
        print_skipped(path, skipped);
        ensure!(!kept.is_empty(), "{} holds no example that fits the model's context", path.display());
        let prompts = kept.iter().enumerate().map(|(index, row)| (index as u64, row.prompt.clone())).collect();
        // Where prompts are answered too, it is of them that some are held out.
        let eval_fraction = if run.data.prompts.is_some() { 0.0 } else { run.data.eval_fraction };
        let held = match &run.data.prompts {
            Some(_) => None,
            None => run.data.eval_prompts.as_deref().map(|path| reader.file(path, on_error)).transpose()?,
        };
        let options = SetOptions { seed: run.seed, shuffle: run.data.shuffle, eval_fraction };
        let pairs = LossSpec::of(run.loss.name).is_some_and(|spec| spec.reads == Reads::Pairs);
        let set = PromptSet::new(prompts, held, options)?;
        Ok(Some(Self {
            rows: Arc::new(kept),
            epochs: Arc::new(Epochs::new(set.clone())),
            set,
            tokenizer: Arc::new(reader.tokenizer.clone()),
            pairs,
        }))
    }

    /// Returns the prompts of the rows, those that are held out among them.
    pub fn set(&self) -> &PromptSet {
        &self.set
    }

    /// Feeds what the rows hold to a hash that names the inputs of a run.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        for row in self.rows.iter() {
            let answers: Vec<String> = row.answers.iter().map(Reply::display).collect();
            hasher.update(format!("{:?}{answers:?}{:?}", row.prompt.display(), row.win_rates).as_bytes());
        }
    }

    /// Makes the outcome of the row at `index` among the given places of the run, for its place in the stream.
    ///
    /// # Errors
    /// A row that no longer tokenises.
    pub fn outcome(&self, run: &RunId, position: u64, index: u64) -> anyhow::Result<Outcome> {
        let (_, (row, _)) = self.epochs.at(index);
        let given = &self.rows[*row as usize];
        let (prompt_ids, answers) = self.tokenizer.encode_answers(&given.prompt, &given.answers)?;
        let answers = answers.into_iter().map(|ids| answer(&self.tokenizer, ids)).collect();
        let key = [run.as_str().as_bytes(), &position.to_le_bytes()];
        let target = match self.pairs {
            true => Target::Pair { p: 1.0, win_rates: None },
            false => Target::Group { win_rates: given.win_rates.clone() },
        };
        let example = Example {
            id: RecordId::derive(&[b"given example", key[0], key[1]]),
            prompt_ids,
            answers,
            target,
            rationale: None,
            weight: 1.0,
            policy_version: 0,
            source: ExampleSource::Offline,
            judge_hash: String::new(),
        };
        Ok(Outcome {
            schema: SCHEMA,
            id: RecordId::derive(&[b"given", key[0], key[1]]),
            position,
            purpose: Purpose::Train,
            examples: vec![example],
            dropped: None,
            left_out: Vec::new(),
            scores: Vec::new(),
            eos_share: 0.0,
            mean_tokens: 0.0,
        })
    }
}

/// Says why the model cannot train on a row; `None` if it can.
fn problem(reader: &Reader<'_>, row: &Row) -> anyhow::Result<Option<String>> {
    let encoded = reader.tokenizer.encode_answers(&row.prompt, &row.answers);
    let (prompt, answers) = encoded.context("a given example does not tokenise")?;
    let longest = answers.iter().map(Vec::len).max().unwrap_or_default();
    if prompt.is_empty() || answers.iter().any(Vec::is_empty) {
        return Ok(Some("its prompt or an answer has no token; remove it".into()));
    }
    let tokens = prompt.len() + longest;
    let fits = tokens <= reader.context;
    let long = || format!("it has {tokens} tokens, the model's context holds {}; shorten it", reader.context);
    Ok((!fits).then(long))
}

/// Makes an answer of nobody's policy: it has no log-probs.
pub(crate) fn answer(tokenizer: &Tokenizer, token_ids: Vec<u32>) -> Answer {
    let finish = if tokenizer.is_ended(&token_ids) { Finish::Eos } else { Finish::Length };
    Answer { player: Player::Policy, token_ids, behavior_logprobs: Vec::new(), finish, score: None }
}
