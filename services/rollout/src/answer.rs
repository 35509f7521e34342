//! From prompt tasks to rollouts: tokenise, sample, decode.

use std::sync::Arc;

use joust_core::{Completion, Player, PromptTask, Purpose, Rollout, rng::Stream};
use joust_data::Tokenizer;
use joust_engine::{Engine, SamplePrompt, SampleRequest, Sampled, SamplingParams, Snapshot};

use crate::{Result, rollout_of};

/// How prompts are answered.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How answers are drawn.
    pub params: &'a SamplingParams,
    /// Seed of the run.
    pub seed: u64,
    /// Answers per prompt.
    pub num_generations: u32,
}

/// Answers tasks of one purpose with one snapshot, in one request, so that the batch depends on nothing else.
///
/// # Errors
/// [`crate::Error`] if a prompt does not tokenise or the engine refuses it.
pub async fn answer(
    engine: &Engine,
    tokenizer: &Tokenizer,
    model: &Arc<Snapshot>,
    tasks: &[PromptTask],
    ask: &Ask<'_>,
) -> Result<Vec<Rollout>> {
    let samples = 0..ask.num_generations;
    let mut prompts = Vec::with_capacity(tasks.len());
    for task in tasks {
        let prompt_ids = tokenizer.encode_prompt(&task.prompt)?;
        prompts.push(SamplePrompt { position: task.position, prompt_ids, samples: samples.clone() });
    }
    let stream = if tasks.iter().all(|task| task.purpose == Purpose::Eval) { Stream::Eval } else { Stream::Train };
    let request = SampleRequest {
        prompts: prompts.clone(),
        params: ask.params.clone(),
        seed: ask.seed,
        stream,
        model: model.clone(),
    };
    let sampled = engine.submit(request).collect(tasks.len() * ask.num_generations as usize).await?;
    let mut answers = sampled.into_iter().peekable();
    let mut rollouts = Vec::with_capacity(tasks.len());
    for (index, (task, prompt)) in tasks.iter().zip(prompts).enumerate() {
        let mut completions = Vec::new();
        while let Some(sampled) = answers.next_if(|sampled| sampled.prompt == index) {
            completions.push(completion(tokenizer, sampled)?);
        }
        rollouts.push(rollout_of(task, prompt.prompt_ids, completions));
    }
    Ok(rollouts)
}

fn completion(tokenizer: &Tokenizer, sampled: Sampled) -> Result<Completion> {
    Ok(Completion {
        sample_index: sampled.sample_index,
        player: Player::Policy,
        text: tokenizer.decode(&sampled.token_ids)?,
        model: sampled.model,
        token_ids: sampled.token_ids,
        logprobs: sampled.logprobs,
        finish: sampled.finish,
    })
}
