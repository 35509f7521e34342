//! `joust sample`: answers prompts with a model, all answers or the best of n.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use joust_config::{RunFile, load, run::Ask as Asked};
use joust_core::{Finish, JudgementValue, Player, Prompt, RecordId, rng::Stream};
use joust_data::{OnError, read_prompts};
use joust_engine::{Engine, SamplePrompt, SampleRequest, Sampled, SamplingParams, Source};
use joust_judges::{Ask, CallContext, Candidate, JudgeItem, build, strongest};
use joust_model::Head;
use serde::Serialize;
use tokio::time::{Duration, Instant};

use crate::{args::SampleArgs, device, model, optim, scorer};

/// Longest wait for all judgements.
const JUDGING: Duration = Duration::from_secs(3600);

/// One printed completion.
#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a Prompt,
    prompt_ids: &'a [u32],
    sample_index: u32,
    token_ids: &'a [u32],
    logprobs: &'a [f32],
    completion: &'a str,
    finish: Finish,
    /// The judge's, where the best of n was asked for and the judge gives scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
}

/// A prompt with its tokens.
struct Question {
    prompt: Prompt,
    ids: Vec<u32>,
}

/// One answer with its text.
struct Answer {
    sampled: Sampled,
    text: String,
    score: Option<f64>,
}

/// Runs the verb.
///
/// # Errors
/// A model, prompt or judge that cannot be used.
pub async fn run(args: SampleArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.temperature >= 0.0, "--temperature is {}, expected 0 or more", args.temperature);
    ensure!(args.top_p > 0.0 && args.top_p <= 1.0, "--top-p is {}, expected above 0 and at most 1", args.top_p);
    ensure!(args.samples >= 1 && args.max_new_tokens >= 1, "--samples and --max-new-tokens must be at least 1");
    ensure!(args.best.is_none() || args.samples >= 2, "--best chooses among 2 or more answers; set -n");
    let file = args.best.as_ref().map(|path| load::<RunFile>(path, &[])).transpose()?.map(|resolved| resolved.run);
    optim::set_threads(0);
    let model = model::open(&args.model, Head::CausalLm, None)?;
    let questions = questions(&args, &model)?;
    let params = SamplingParams {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: i64::from(args.top_k),
        max_new_tokens: args.max_new_tokens as usize,
        eos_ids: model.tokenizer.eos_ids().to_vec(),
    };
    let request = SampleRequest {
        prompts: (0..)
            .zip(&questions)
            .map(|(position, question)| SamplePrompt {
                position,
                prompt_ids: question.ids.clone(),
                samples: 0..args.samples,
            })
            .collect(),
        params,
        seed: args.seed,
        stream: Stream::Eval,
        source: Source::Model(model.snapshot(String::new())?),
    };
    let engine = Engine::start(device::chosen(), 64)?;
    let mut answers = Vec::with_capacity(questions.len());
    for sampled in engine.submit(request).collect(questions.len() * args.samples as usize).await? {
        answers.push(Answer { text: model.tokenizer.decode(&sampled.token_ids)?, sampled, score: None });
    }
    let wanted = answers.len() / args.samples as usize;
    if let Some(file) = &file {
        answers = best(file, &args, &questions, answers).await?;
    }
    for answer in &answers {
        print(&args, &questions[answer.sampled.prompt], answer)?;
    }
    let failed = wanted.saturating_sub(if file.is_some() { answers.len() } else { wanted });
    ensure!(failed == 0, "{failed} of {wanted} prompts have no best answer, because their judgements failed");
    Ok(ExitCode::SUCCESS)
}

/// Keeps each prompt's best answer; a prompt whose judgement failed keeps none.
async fn best(
    file: &RunFile,
    args: &SampleArgs,
    questions: &[Question],
    mut answers: Vec<Answer>,
) -> anyhow::Result<Vec<Answer>> {
    let config = file.training_judge().context("the run file names no judge")?;
    let opened = scorer::open_all(&file.judge, &file.output.dir, &device::chosen())?;
    let judge = build(config, &file.judge, &opened)?;
    let ask = if file.feedback.ask == Asked::Score { Ask::Score } else { Ask::Rank };
    let candidate = |answer: &Answer| Candidate {
        player: Player::Policy,
        text: answer.text.clone(),
        token_count: answer.sampled.token_ids.len(),
        truncated: answer.sampled.finish == Finish::Length,
    };
    let groups = answers.chunks(args.samples as usize).zip(questions).enumerate();
    let items: Vec<JudgeItem> = groups
        .map(|(position, (group, question))| JudgeItem {
            id: RecordId::derive(&[b"sample", &(position as u64).to_le_bytes()]),
            ask,
            prompt: question.prompt.clone(),
            candidates: group.iter().map(candidate).collect(),
        })
        .collect();
    let judgements = judge.judge(&items, &CallContext::new(args.seed, Instant::now() + JUDGING)).await;
    let mut kept = Vec::with_capacity(judgements.len());
    for judgement in judgements {
        let mut group: Vec<Answer> = answers.drain(..args.samples as usize).collect();
        let Some(place) = strongest(&judgement) else {
            eprintln!("judgement failed: {:?}: {}", judgement.status, judgement.detail.unwrap_or_default());
            continue;
        };
        let mut answer = group.swap_remove(place);
        if let Some(JudgementValue::Scores(scores)) = judgement.value {
            answer.score = scores.get(place).copied();
        }
        kept.push(answer);
    }
    Ok(kept)
}

fn questions(args: &SampleArgs, model: &model::LanguageModel) -> anyhow::Result<Vec<Question>> {
    if !args.prompt_ids.is_empty() {
        let prompt = Prompt::Text(model.tokenizer.decode(&args.prompt_ids)?);
        return Ok(vec![Question { prompt, ids: args.prompt_ids.clone() }]);
    }
    let prompts: Vec<Prompt> = match &args.prompts {
        Some(path) => read_prompts(path, OnError::Fail)?.0.into_iter().map(|(_, prompt)| prompt).collect(),
        None => args.prompt.iter().cloned().map(Prompt::Text).collect(),
    };
    let encode = |prompt: Prompt| Ok(Question { ids: model.tokenizer.encode_prompt(&prompt)?, prompt });
    prompts.into_iter().take(args.limit).map(encode).collect()
}

fn print(args: &SampleArgs, question: &Question, Answer { sampled, text, score }: &Answer) -> anyhow::Result<()> {
    if args.json {
        let Sampled { sample_index, token_ids, logprobs, finish, .. } = sampled;
        let line = Line {
            prompt: &question.prompt,
            prompt_ids: &question.ids,
            sample_index: *sample_index,
            token_ids,
            logprobs,
            completion: text,
            finish: *finish,
            score: *score,
        };
        println!("{}", serde_json::to_string(&line)?);
    } else {
        let cut = if sampled.finish == Finish::Length { " [cut]" } else { "" };
        println!("{}\u{1b}[2m|\u{1b}[0m{text}{cut}\n", question.prompt.display());
    }
    Ok(())
}
