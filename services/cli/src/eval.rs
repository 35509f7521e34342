//! `joust eval`: win rate of one model against another under a run file's judge, with figures on their texts.

use std::process::ExitCode;

use anyhow::Context;
use joust_config::{RunFile, load};
use joust_core::Rollout;
use joust_data::{OnError, read_prompts};
use joust_engine::Engine;
use joust_model::{Device, Head, Llama};
use joust_train::perplexity_parts;
use serde::Serialize;

use crate::{
    args::EvalArgs,
    device,
    evaluation::{Evaluator, Report},
    model::{self, LanguageModel},
    optim, run, scorer,
    stats::Tally,
};

/// What is printed.
#[derive(Serialize)]
struct Figures {
    win_rate: Option<f64>,
    interval: (f64, f64),
    #[serde(flatten)]
    tally: Tally,
    prompts: usize,
    /// distinct-2 of the model's answers over that of the other's.
    distinct2_ratio: f64,
    /// Perplexity, under the other model, of the model's answers over that of its own.
    perplexity_ratio: f64,
    eos_share: f64,
    distinct_texts: usize,
    /// Different answers among the first hundred.
    distinct_of_100: usize,
}

/// Runs the verb.
///
/// # Errors
/// Models, prompts or a judge that cannot be used.
pub async fn run(args: EvalArgs) -> anyhow::Result<ExitCode> {
    let file = load::<RunFile>(&args.run, &args.overrides)?.run;
    optim::set_threads(file.learner.optim.threads);
    let device = device::chosen();
    let asked = model::open(&args.model, Head::CausalLm, Some(model::dtype(file.policy.dtype)))?;
    let other = model::open(&args.against, Head::CausalLm, Some(model::dtype(file.policy.dtype)))?;
    let prompts = match &args.prompts {
        Some(path) => read_prompts(path, OnError::Fail)?.0,
        None => run::held_out(&file, &asked)?,
    };
    let judge = file.eval_judge().context("the run file names no judge")?;
    let alone = std::slice::from_ref(judge);
    let opened = scorer::open_all(alone, &file.output.dir, &device)?;
    let evaluator = Evaluator {
        engine: Engine::start(device.clone(), 256)?,
        tokenizer: asked.tokenizer.clone(),
        judge: joust_judges::build(judge, alone, &opened)?,
        prompts: prompts.into_iter().take(args.limit).collect(),
        params: run::sampling(&file, &asked.tokenizer),
        seed: file.seed,
    };
    let answers = evaluator.answers(&asked.snapshot(String::new())?).await?;
    let others = evaluator.answers(&other.snapshot(String::new())?).await?;
    let report = evaluator.compare(answers, others).await;
    let figures = tokio::task::spawn_blocking(move || figures(&report, &other, &device)).await??;
    print(&args, &figures)?;
    Ok(ExitCode::SUCCESS)
}

fn figures(report: &Report, other: &LanguageModel, device: &Device) -> anyhow::Result<Figures> {
    let (after, before, distinct_texts) = report.variety();
    let model = other.decoder()?;
    let hundred: Vec<String> = report.samples.iter().take(100).map(|sample| sample.after.clone()).collect();
    Ok(Figures {
        win_rate: report.tally.win_rate(),
        interval: report.tally.interval(),
        tally: report.tally,
        prompts: report.samples.len(),
        distinct2_ratio: after / before,
        perplexity_ratio: perplexity(&model, &report.answers, device) / perplexity(&model, &report.others, device),
        eos_share: Report::eos_share(&report.answers),
        distinct_texts,
        distinct_of_100: crate::stats::distinct_texts(&hundred),
    })
}

/// Computes the perplexity per token of answers under a model.
fn perplexity(model: &Llama, rollouts: &[Rollout], device: &Device) -> f64 {
    let (mut nll, mut tokens) = (0.0, 0);
    for part in rollouts.chunks(32) {
        let pairs: Vec<(&[u32], &[u32])> =
            part.iter().map(|r| (r.prompt_ids.as_slice(), r.completions[0].token_ids.as_slice())).collect();
        for (value, count) in perplexity_parts(model, &pairs, device) {
            nll += value;
            tokens += count;
        }
    }
    (nll / tokens.max(1) as f64).exp()
}

fn print(args: &EvalArgs, figures: &Figures) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(figures)?);
        return Ok(());
    }
    let Tally { wins, ties, losses, failed } = figures.tally;
    let rate = figures.win_rate.map_or("unknown".to_owned(), |rate| format!("{rate:.3}"));
    let (low, high) = figures.interval;
    println!(
        "win_rate={rate} ci=[{low:.3},{high:.3}] wins={wins} ties={ties} losses={losses} failed={failed} prompts={}",
        figures.prompts
    );
    println!(
        "distinct2_ratio={:.3} perplexity_ratio={:.3} eos_share={:.3} distinct_texts={}",
        figures.distinct2_ratio, figures.perplexity_ratio, figures.eos_share, figures.distinct_texts
    );
    Ok(())
}
