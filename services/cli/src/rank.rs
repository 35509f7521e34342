//! One rank of a run's learner: what it trains with, and the process that it is where there are several.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use joust_config::{
    Resolved, RunFile, load,
    run::{LossName, Weight},
};
use joust_learner::{Rank, RankPlace, RankProcesses, serve_rank};
use joust_model::{Device, Head, Llama};
use joust_torch::{Join, ProcessGroup, Store};
use joust_train::{Master, Trainer, mask_heads};

use crate::{
    args::RankArgs,
    model::{self, LanguageModel, scored},
    optim,
    run::{
        roles::{averaged, keeps_past},
        settings::{held_to, keep, objective, reasons},
    },
};

/// Longest wait of a rank for the others, in joining and in a collective.
const WAIT: Duration = Duration::from_secs(300);
/// Elements of the smallest bucket of gradients: 1 MiB.
const BUCKET: i64 = 1 << 18;
/// Names, for tests, failpoints of ranks: `rank:name:n`, one for each time that the group is started, separated by commas.
const FAILPOINTS: &str = "JOUST_RANK_FAILPOINTS";

/// Builds what a rank trains: the policy at its initial weights, its objective and what it is held to.
///
/// # Errors
/// Weights that are not whole, or a loss that refuses its settings.
pub fn build(run: &RunFile, model: &LanguageModel, steps: u64, device: &Device) -> anyhow::Result<Rank> {
    let (trainer, reference) = trainer(run, model, steps, device)?;
    Ok(Rank::new(trainer, reference, held_to(run)))
}

fn trainer(run: &RunFile, model: &LanguageModel, steps: u64, device: &Device) -> anyhow::Result<(Trainer, Llama)> {
    let updates = steps * u64::from(run.learner.epochs_per_iteration);
    let settings = optim::settings(run.learner.learning_rate, &run.learner.optim, updates);
    let mut master = Master::new(&model.config, &model.weights, settings);
    if averaged(run) {
        master.keep_average(run.sampling.ema_decay);
    }
    if keeps_past(run) {
        master.keep_past();
    }
    let frozen = model.weights.snapshot(model.config.dtype.kind());
    let objective = objective(run)?;
    let mut trainer = Trainer::new(master, objective, device.clone());
    trainer.masks = mask_heads(&objective, &model.config, settings);
    trainer.keep = keep(run);
    trainer.reasons = reasons(run, model.tokenizer.clone());
    trainer.wpo = run.pairing.weights.contains(&Weight::Wpo);
    if matches!(run.loss.name, LossName::Ppo | LossName::Dro) {
        let (config, weights) = scored(model.config.clone(), &model.weights, model.tokenizer.pad_id());
        trainer.critic = Some(Master::new(&config, &weights, settings));
    }
    Ok((trainer, Llama::new(&model.config, &frozen)?))
}

/// Says how the ranks of a run are started: this program again, with the resolved run.
///
/// # Errors
/// A resolved run that cannot be written for them.
pub fn processes(resolved: &Resolved, steps: u64) -> anyhow::Result<RankProcesses> {
    let program = std::env::current_exe().context("cannot tell where joust is")?;
    let run = &resolved.run;
    let (dir, ranks) = (run.output.dir.clone(), run.learner.ranks);
    let file: PathBuf = dir.join("run.toml");
    let failpoints = std::env::var(FAILPOINTS).unwrap_or_default();
    let command = move |place: &RankPlace| {
        let mut command = tokio::process::Command::new(&program);
        command.arg("rank").arg(&file).args(["--rank", &place.rank.to_string(), "--ranks", &place.size.to_string()]);
        command.args(["--store", &place.store.to_string(), "--steps", &steps.to_string()]);
        let point = failpoints.split(',').nth(place.incarnation as usize).and_then(|point| point.split_once(':'));
        match point.filter(|(rank, _)| *rank == place.rank.to_string()) {
            Some((_, point)) => command.env("JOUST_FAILPOINT", point),
            None => command.env_remove("JOUST_FAILPOINT"),
        };
        command
    };
    Ok(RankProcesses {
        size: ranks as usize,
        restarts: run.learner.rank_restarts,
        scratch: dir.join(".rank-weights.safetensors"),
        command: Arc::new(command),
    })
}

/// Runs the verb: joins the other ranks, then does what the supervisor says.
///
/// # Errors
/// A model or run file that cannot be used, or ranks that do not come.
pub fn run(args: &RankArgs) -> anyhow::Result<ExitCode> {
    let resolved = load::<RunFile>(&args.file, &args.overrides)?;
    let run = &resolved.run;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if run.learner.optim.threads == 0 { cores / args.ranks } else { run.learner.optim.threads as usize };
    optim::set_threads(threads.max(1) as u32);
    let model = model::open(&run.policy.model, Head::CausalLm, Some(model::dtype(run.policy.dtype)))?;
    let (mut trainer, reference) = trainer(run, &model, args.steps, &Device::cpu())?;
    let join = Join {
        rank: args.rank,
        size: args.ranks,
        name: "ranks".into(),
        identity: format!("run {} with weights {}", resolved.hash, model.weights.hash()?),
        host: "127.0.0.1".into(),
        timeout: WAIT,
    };
    let group = ProcessGroup::join(Arc::new(Store::connect(args.store, WAIT)?), join)?;
    trainer.train_with(Arc::new(group), BUCKET)?;
    serve_rank(Rank::new(trainer, reference, held_to(run)))?;
    Ok(ExitCode::SUCCESS)
}
