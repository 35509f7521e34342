//! `joust run`: all roles of one run in this process, over a queue in its folder or on a Redis.

pub(crate) mod assemble;
pub(crate) mod folder;
mod memory;
pub(crate) mod observer;
mod queue;
pub(crate) mod roles;
pub(crate) mod settings;

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use joust_config::{Resolved, RunFile, dump, load};
use joust_core::{Prompt, Shutdown};
use joust_learner::Ended;

pub use assemble::sampling;
use folder::Claim;

use crate::{args::RunArgs, model::LanguageModel, optim};

/// Exit code of a run that a signal stopped and `--resume` can go on with.
const STOPPED: u8 = 130;

/// Runs the verb.
///
/// # Errors
/// Bad input before anything is written, or what broke the run; the last checkpoint is whole then.
pub async fn run(file: &Path, args: RunArgs) -> anyhow::Result<ExitCode> {
    let resolved = load::<RunFile>(file, &args.overrides)?;
    optim::set_threads(resolved.run.learner.optim.threads);
    let parts = tokio::task::spawn_blocking({
        let resolved = resolved.clone();
        move || assemble::open(&resolved)
    });
    let parts = parts.await.context("failed to open the run's inputs")??;
    if args.dry_run {
        print!("{}\n{}", dump(&resolved)?, memory::estimate(&resolved.run, &parts.model, parts.prompt_tokens()?));
        return Ok(ExitCode::SUCCESS);
    }
    let dir = resolved.run.output.dir.clone();
    // A server that cannot be used leaves the folder untouched.
    let redis = args.queue.redis();
    let remote = match &redis {
        Some(config) => Some(queue::connect(config, &resolved.run.name, args.resume).await?),
        None => None,
    };
    let server = redis.map(|config| config.server());
    let how = if args.resume { Claim::Resume } else { Claim::Fresh };
    folder::claim(&resolved, (&parts.fingerprint, server.as_deref()), how)?;
    let _lock = queue::lock(&dir)?;
    let queue = remote.map_or_else(|| queue::in_folder(&dir), Ok)?;
    if let Some(note) = parts.inputs.last_step(&resolved.run).filter(|_| !args.resume) {
        eprintln!("{note}");
    }
    let shutdown = Shutdown::default();
    stop_on_signal(shutdown.clone());
    let (ended, state) = roles::run(&resolved, parts, queue, shutdown).await?;
    let dir = dir.display();
    match ended {
        Ended::Stopped => {
            eprintln!("stopped after step {}; go on with: joust run {} --resume", state.step, file.display());
            return Ok(ExitCode::from(STOPPED));
        }
        Ended::Finished => {}
        Ended::MaxKl => eprintln!("stopped by eval.stop.max_kl after step {}", state.step),
        Ended::Patience => eprintln!("stopped by eval.stop.patience after step {}", state.step),
        Ended::Budget => eprintln!("stopped by eval.stop.max_seconds after step {}", state.step),
    }
    let ledger = &state.ledger;
    let dropped: u64 = ledger.prompts_dropped.values().sum();
    println!(
        "run done: steps={} examples={} replayed={} prompts_trained={} prompts_dropped={dropped} policy={dir}/policy",
        state.step, ledger.applied, ledger.replayed, ledger.prompts_trained
    );
    Ok(ExitCode::SUCCESS)
}

/// Returns the held-out prompts of a run file.
///
/// # Errors
/// Prompt files that cannot be used.
pub fn held_out(run: &RunFile, model: &LanguageModel) -> anyhow::Result<Vec<(u64, Prompt)>> {
    let prompts = assemble::inputs(run, model)?.prompts.eval().to_vec();
    anyhow::ensure!(
        !prompts.is_empty(),
        "the run file holds out no prompts; set data.eval_fraction, or give --prompts"
    );
    Ok(prompts)
}

/// Opens everything that a run reads and says what was found.
///
/// # Errors
/// The first input that cannot be used.
pub fn check_inputs(resolved: &Resolved) -> anyhow::Result<String> {
    let parts = assemble::open(resolved)?;
    let (train, held) = (parts.inputs.prompts.len(), parts.inputs.prompts.eval().len());
    Ok(format!(
        "{} parameters, {train} training and {held} held-out prompts, {} steps",
        parts.model.config.parameters(),
        parts.steps
    ))
}

/// The first Ctrl-C or SIGTERM finishes the step; a second one ends the process at once, which loses nothing either.
fn stop_on_signal(shutdown: Shutdown) {
    tokio::spawn(async move {
        wait_for_signal().await;
        eprintln!("\nfinishing the step, then writing a checkpoint (again to end at once)");
        shutdown.trigger();
        wait_for_signal().await;
        joust_core::scratch::remove_all();
        signal_hook::low_level::exit(i32::from(STOPPED));
    });
}

/// Waits for an interrupt or the end that a service manager asks for.
pub async fn wait_for_signal() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
