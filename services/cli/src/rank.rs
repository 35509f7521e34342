//! One rank of a run's learner: what it trains with, and the process that it is where there are several.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use joust_config::{
    Resolved, RunFile, load,
    run::{LossName, OnNan, Weight},
};
use joust_learner::{Rank, RankPlace, RankProcesses, serve_rank};
use joust_model::{Device, Llama};
use joust_torch::{Join, ProcessGroup, Store};
use joust_train::{Master, Ranks, Trainer, heads};

use crate::{
    args::RankArgs,
    device,
    model::{self, LanguageModel, scored},
    optim,
    run::{
        roles::{averaged, keeps_past},
        settings::{held_to, keep, objective, reasons},
    },
};

/// Elements of the smallest bucket of gradients: 1 MiB.
const BUCKET: i64 = 1 << 18;
/// Names, for tests, failpoints of ranks: `rank:name:n`, one for each time that the group is started, separated by commas.
const FAILPOINTS: &str = "JOUST_RANK_FAILPOINTS";

/// Builds what a rank trains: the policy at its initial weights, its objective and what it is held to.
///
/// # Errors
/// Weights that are not whole, or a loss that refuses its settings.
pub fn build(run: &RunFile, model: &LanguageModel, steps: u64, device: &Device) -> anyhow::Result<Rank> {
    let (trainer, reference) = trainer(run, model, (steps, Ranks::default()), device)?;
    Ok(Rank::new(trainer, reference, held_to(run)))
}

fn trainer(
    run: &RunFile,
    model: &LanguageModel,
    (steps, ranks): (u64, Ranks),
    device: &Device,
) -> anyhow::Result<(Trainer, Llama)> {
    let updates = steps * u64::from(run.learner.epochs_per_iteration);
    let settings = optim::settings(run.learner.learning_rate, &run.learner.optim, updates);
    let base = Llama::new(&model.config, &model.weights.snapshot(model.config.dtype.kind()))?;
    let trained = model.adapter.as_ref().map_or(&model.weights, |adapter| &adapter.weights);
    let mut master = Master::on(ranks.clone(), &model.config, trained, settings)?;
    if let Some(adapter) = &model.adapter {
        master = master.on_base(&base, adapter.config.clone(), run.seed);
    }
    master.recomputes = run.learner.activation_checkpointing;
    if averaged(run) {
        master.keep_average(run.sampling.ema_decay);
    }
    if keeps_past(run) {
        master.keep_past();
    }
    let objective = objective(run)?;
    let mut trainer = Trainer::new(master, objective, device.clone());
    trainer.heads = heads(&objective, &model.config, settings, (ranks.clone(), device.torch()))?;
    trainer.keep = keep(run);
    trainer.skip_not_finite = run.learner.on_nan == OnNan::Skip;
    trainer.reasons = reasons(run, model.tokenizer.clone());
    trainer.wpo = run.pairing.weights.contains(&Weight::Wpo);
    if matches!(run.loss.name, LossName::Ppo | LossName::Dro) {
        let (config, weights) = scored(model.config.clone(), &model.weights, crate::padding::id(&model.tokenizer));
        let mut critic = Master::on(ranks, &config, &weights, settings)?;
        critic.recomputes = run.learner.activation_checkpointing;
        trainer.critic = Some(critic);
    }
    // An adapter that the run goes on from is part of where it begins; a fresh one adds nothing.
    let started = model.adapter.as_ref().filter(|_| run.policy.lora.as_ref().is_some_and(|lora| lora.init.is_some()));
    let reference = started.map_or(Ok(base.base()), |adapter| base.with_adapter(adapter, None))?;
    Ok((trainer, reference))
}

/// Says how the ranks of a run are started: this program again, with the resolved run.
///
/// # Errors
/// A resolved run that cannot be written for them.
pub fn processes(resolved: &Resolved, steps: u64) -> anyhow::Result<RankProcesses> {
    let program = std::env::current_exe().context("cannot tell where joust is")?;
    let run = &resolved.run;
    let dir = run.output.dir.clone();
    let file: PathBuf = dir.join("run.toml");
    let failpoints = std::env::var(FAILPOINTS).unwrap_or_default();
    let devices = device::of_ranks(run.learner.ranks as usize)?;
    let command = move |place: &RankPlace| {
        let mut command = tokio::process::Command::new(&program);
        command.arg("rank").arg(&file).args(["--rank", &place.rank.to_string(), "--ranks", &place.size.to_string()]);
        command.args(["--store", &place.store.to_string(), "--steps", &steps.to_string()]);
        command.args(["--device", &devices[place.rank]]);
        let point = failpoints.split(',').nth(place.incarnation as usize).and_then(|point| point.split_once(':'));
        match point.filter(|(rank, _)| *rank == place.rank.to_string()) {
            Some((_, point)) => command.env("JOUST_FAILPOINT", point),
            None => command.env_remove("JOUST_FAILPOINT"),
        };
        command
    };
    Ok(RankProcesses {
        size: run.learner.ranks as usize,
        least: if run.learner.min_ranks == 0 { run.learner.ranks } else { run.learner.min_ranks } as usize,
        timeout: Duration::from_secs(run.learner.rank_timeout_s),
        restarts: run.learner.rank_restarts,
        scratch: dir.join(".rank-weights.safetensors"),
        device: device::torch(),
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
    let model = model::policy(&run.policy, run.seed)?;
    let wait = Duration::from_secs(run.learner.rank_timeout_s);
    let join = Join {
        rank: args.rank,
        size: args.ranks,
        name: "ranks".into(),
        identity: format!("run {} with weights {}", resolved.hash, model.hash()?),
        host: "127.0.0.1".into(),
        timeout: wait,
    };
    let group = ProcessGroup::join(Arc::new(Store::connect(args.store, wait)?), join)?;
    let ranks = Ranks::of(Arc::new(group), BUCKET);
    let (trainer, reference) = trainer(run, &model, (args.steps, ranks), &device::chosen())?;
    drop(model); // the masters' first values
    serve_rank(Rank::new(trainer, reference, held_to(run)))?;
    Ok(ExitCode::SUCCESS)
}
