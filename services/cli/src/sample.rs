//! `joust sample`: answers prompts with a model.

use std::process::ExitCode;

use anyhow::ensure;
use joust_core::{Finish, Prompt, rng::Stream};
use joust_data::{OnError, read_prompts};
use joust_engine::{Engine, SamplePrompt, SampleRequest, Sampled, SamplingParams, Source};
use joust_model::{Device, Head};
use serde::Serialize;

use crate::{args::SampleArgs, model, optim};

/// One printed completion.
#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a str,
    prompt_ids: &'a [u32],
    sample_index: u32,
    token_ids: &'a [u32],
    logprobs: &'a [f32],
    text: String,
    finish: Finish,
}

/// Runs the verb.
///
/// # Errors
/// A model or prompt that cannot be used.
pub async fn run(args: SampleArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.temperature >= 0.0, "--temperature is {}, expected 0 or more", args.temperature);
    ensure!(args.top_p > 0.0 && args.top_p <= 1.0, "--top-p is {}, expected above 0 and at most 1", args.top_p);
    ensure!(args.samples >= 1 && args.max_new_tokens >= 1, "--samples and --max-new-tokens must be at least 1");
    optim::set_threads(0);
    let model = model::open(&args.model, Head::CausalLm, None)?;
    let prompts = prompts(&args, &model)?;
    let params = SamplingParams {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: i64::from(args.top_k),
        max_new_tokens: args.max_new_tokens as usize,
        eos_ids: model.tokenizer.eos_ids().to_vec(),
    };
    let request = SampleRequest {
        prompts: (0..)
            .zip(&prompts)
            .map(|(position, (_, ids))| SamplePrompt { position, prompt_ids: ids.clone(), samples: 0..args.samples })
            .collect(),
        params,
        seed: args.seed,
        stream: Stream::Eval,
        source: Source::Model(model.snapshot(String::new())?),
    };
    let engine = Engine::start(Device::cpu(), 64)?;
    for sampled in engine.submit(request).collect(prompts.len() * args.samples as usize).await? {
        let text = model.tokenizer.decode(&sampled.token_ids)?;
        print(&args, &prompts[sampled.prompt], &sampled, text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn prompts(args: &SampleArgs, model: &model::LanguageModel) -> anyhow::Result<Vec<(String, Vec<u32>)>> {
    if !args.prompt_ids.is_empty() {
        let text = model.tokenizer.decode(&args.prompt_ids)?;
        return Ok(vec![(text, args.prompt_ids.clone())]);
    }
    let prompts: Vec<Prompt> = match &args.prompts {
        Some(path) => read_prompts(path, OnError::Fail)?.0.into_iter().map(|(_, prompt)| prompt).collect(),
        None => args.prompt.iter().cloned().map(Prompt::Text).collect(),
    };
    let encode = |prompt: &Prompt| Ok((prompt.display(), model.tokenizer.encode_prompt(prompt)?));
    prompts.iter().take(args.limit).map(encode).collect()
}

fn print(
    args: &SampleArgs,
    (prompt, prompt_ids): &(String, Vec<u32>),
    sampled: &Sampled,
    text: String,
) -> anyhow::Result<()> {
    if args.json {
        let Sampled { sample_index, token_ids, logprobs, finish, .. } = sampled;
        let line = Line { prompt, prompt_ids, sample_index: *sample_index, token_ids, logprobs, text, finish: *finish };
        println!("{}", serde_json::to_string(&line)?);
    } else {
        let cut = if sampled.finish == Finish::Length { " [cut]" } else { "" };
        println!("{prompt}\u{1b}[2m|\u{1b}[0m{text}{cut}\n");
    }
    Ok(())
}
