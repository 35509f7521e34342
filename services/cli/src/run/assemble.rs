//! Opening everything that a run reads, before anything is written: model, prompts, judges.

use std::sync::Arc;

use anyhow::Context;
use joust_config::{Resolved, RunFile, judge::JudgeConfig};
use joust_coordinator::prompts::{Inputs, Reader, read};
use joust_core::Prompt;
use joust_data::Tokenizer;
use joust_engine::SamplingParams;
use joust_judges::{Judge, build};
use joust_model::Device;

use crate::{
    device,
    model::{self, LanguageModel},
    scorer,
};

/// The inputs of a run, checked.
pub struct Parts {
    /// The initial policy.
    pub model: LanguageModel,
    /// Training and held-out prompts, and given examples.
    pub inputs: Inputs,
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
        let prompts = self.inputs.prompts.train();
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
    let inputs = inputs(run, &model)?;
    let device = device::chosen();
    let opened = scorer::open_all(&run.judge, &run.output.dir, &device)?;
    let judge = |config: Option<&JudgeConfig>| -> anyhow::Result<Arc<dyn Judge>> {
        Ok(build(config.context("the run file names no judge")?, &run.judge, &opened)?)
    };
    let weights_hash = model.hash()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(weights_hash.as_bytes());
    for (row, prompt) in inputs.prompts.train().iter().chain(inputs.prompts.eval()) {
        hasher.update(&row.to_le_bytes()).update(prompt.display().as_bytes());
    }
    if let Some(given) = &inputs.given {
        given.hash(&mut hasher);
    }
    Ok(Parts {
        judge: judge(run.training_judge())?,
        eval_judge: judge(run.eval_judge())?,
        device,
        fingerprint: hasher.finalize().to_hex().to_string(),
        weights_hash,
        steps: inputs.steps(run),
        model,
        inputs,
    })
}

/// Reads what the run trains on and its held-out prompts.
///
/// # Errors
/// A file that cannot be used.
pub fn inputs(run: &RunFile, model: &LanguageModel) -> anyhow::Result<Inputs> {
    let context = model.config.max_position_embeddings as usize;
    read(run, &Reader { tokenizer: &model.tokenizer, context })
}

/// Returns how the run draws answers.
pub fn sampling(run: &RunFile, tokenizer: &Tokenizer) -> SamplingParams {
    SamplingParams {
        temperature: run.sampling.temperature,
        top_p: run.sampling.top_p,
        top_k: i64::from(run.sampling.top_k),
        max_new_tokens: run.sampling.max_new_tokens as usize,
        eos_ids: tokenizer.eos_ids().to_vec(),
    }
}
