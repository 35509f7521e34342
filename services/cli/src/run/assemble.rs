//! Opening everything that a run reads, before anything is written: model, prompts, judges.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, ensure};
use joust_config::{Resolved, RunFile, judge::JudgeConfig};
use joust_core::Prompt;
use joust_data::{OnError, PromptSet, SetOptions, read_prompts};
use joust_engine::SamplingParams;
use joust_judges::{Judge, build};
use joust_model::Device;

use crate::{
    device,
    model::{self, LanguageModel},
    scorer,
    sft::on_error,
};

/// The inputs of a run, checked.
pub struct Parts {
    /// The initial policy.
    pub model: LanguageModel,
    /// Training and held-out prompts.
    pub prompts: PromptSet,
    /// The judge of training.
    pub judge: Arc<dyn Judge>,
    /// The judge of evaluations.
    pub eval_judge: Arc<dyn Judge>,
    /// The device that samples and trains.
    pub device: Device,
    /// Hash of initial weights and prompts.
    pub fingerprint: String,
    /// Hash of the initial weights.
    pub weights_hash: String,
    /// Steps of the run.
    pub steps: u64,
}

impl Parts {
    /// Returns the mean tokens of a training prompt.
    ///
    /// # Errors
    /// A prompt that the chat template refuses.
    pub fn prompt_tokens(&self) -> anyhow::Result<u64> {
        let prompts = self.prompts.train();
        let tokens = |(_, prompt): &(u64, Prompt)| Ok(self.model.tokenizer.encode_prompt(prompt)?.len() as u64);
        let all: u64 = prompts.iter().map(tokens).sum::<anyhow::Result<u64>>()?;
        Ok(all.div_ceil(prompts.len().max(1) as u64))
    }
}

/// Opens and checks model, prompts and judges.
///
/// # Errors
/// The first input that cannot be used, by name.
pub fn open(resolved: &Resolved) -> anyhow::Result<Parts> {
    let run = &resolved.run;
    let model = model::policy(&run.policy, run.seed)?;
    let prompts = prompts(run, &model)?;
    let device = device::chosen();
    let opened = scorer::open_all(&run.judge, &run.output.dir, &device)?;
    let judge = |config: Option<&JudgeConfig>| -> anyhow::Result<Arc<dyn Judge>> {
        Ok(build(config.context("the run file names no judge")?, &run.judge, &opened)?)
    };
    let weights_hash = model.hash()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(weights_hash.as_bytes());
    for (row, prompt) in prompts.train().iter().chain(prompts.eval()) {
        hasher.update(&row.to_le_bytes()).update(prompt.display().as_bytes());
    }
    Ok(Parts {
        judge: judge(run.training_judge())?,
        eval_judge: judge(run.eval_judge())?,
        device,
        fingerprint: hasher.finalize().to_hex().to_string(),
        weights_hash,
        steps: steps(run, prompts.len() as u64)?,
        model,
        prompts,
    })
}

/// Returns the steps of the run: `learner.steps`, or what the epochs give.
fn steps(run: &RunFile, prompts: u64) -> anyhow::Result<u64> {
    let per_step = u64::from(run.learner.prompts_per_step);
    let steps = run.learner.optim.steps.unwrap_or(prompts * u64::from(run.data.epochs) / per_step);
    ensure!(
        steps > 0,
        "{prompts} training prompts x data.epochs = {} are fewer than learner.prompts_per_step = {per_step}; set learner.steps or more epochs",
        run.data.epochs
    );
    Ok(steps)
}

/// Reads training and held-out prompts.
///
/// # Errors
/// A prompt file that cannot be used.
pub fn prompts(run: &RunFile, model: &LanguageModel) -> anyhow::Result<PromptSet> {
    let mode = on_error(run.data.on_error);
    let read = |path| -> anyhow::Result<Vec<(u64, Prompt)>> {
        let (prompts, mut skipped) = read_prompts(path, mode)?;
        let kept = fitting(prompts, path, model, (mode, &mut skipped))?;
        for (reason, count) in skipped {
            eprintln!("{}: skipped {count} rows: {reason}", path.display());
        }
        ensure!(!kept.is_empty(), "{} holds no prompt that fits the model's context", path.display());
        Ok(kept)
    };
    let eval = run.data.eval_prompts.as_deref().map(read).transpose()?;
    let options = SetOptions { seed: run.seed, shuffle: run.data.shuffle, eval_fraction: run.data.eval_fraction };
    Ok(PromptSet::new(read(&run.data.prompts)?, eval, options)?)
}

/// Leaves prompts that the model can read and answer; others end the reading or are counted.
fn fitting(
    prompts: Vec<(u64, Prompt)>,
    path: &std::path::Path,
    model: &LanguageModel,
    (mode, skipped): (OnError, &mut BTreeMap<String, usize>),
) -> anyhow::Result<Vec<(u64, Prompt)>> {
    let context = model.config.max_position_embeddings as usize;
    let mut kept = Vec::with_capacity(prompts.len());
    for (row, prompt) in prompts {
        let tokens = model.tokenizer.encode_prompt(&prompt)?.len();
        if tokens > 0 && tokens < context {
            kept.push((row, prompt));
            continue;
        }
        ensure!(
            mode == OnError::Skip,
            "{}:{}: the prompt has {tokens} tokens, the model's context holds {context}; shorten it, or set data.on_error = \"skip\"",
            path.display(),
            row + 1
        );
        *skipped.entry("the prompt does not fit the context".into()).or_default() += 1;
    }
    Ok(kept)
}

/// Returns how the run draws answers.
pub fn sampling(run: &RunFile, model: &LanguageModel) -> SamplingParams {
    SamplingParams {
        temperature: run.sampling.temperature,
        top_p: run.sampling.top_p,
        top_k: i64::from(run.sampling.top_k),
        max_new_tokens: run.sampling.max_new_tokens as usize,
        eos_ids: model.tokenizer.eos_ids().to_vec(),
    }
}
