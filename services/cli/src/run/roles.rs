//! Starting the roles of a run in this process, and ending them together.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use joust_config::{
    Resolved, RunFile,
    run::{LossName, LossSpec, Reads, ReferenceKind},
};
use joust_core::{ModelSet, Player, Release, Shutdown};
use joust_engine::{Engine, ModelStore, Published, Snapshot};
use joust_judges::Ask;
use joust_learner::{Ended, State};
use joust_losses::{GradientLoss, ListLoss, PairLoss, SingleLoss};
use joust_model::Llama;
use joust_pairs::{Filter, Label, PairingRules, Select};
use joust_queue::{Queue, Settings as QueueSettings, open_embedded};
use joust_train::{Master, Objective, Trainer};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    assemble::{Parts, sampling},
    observer::{RunObserver, archive},
    prompts::PromptStream,
};
use crate::{evaluation::Evaluator, model::scored, optim};

/// Answers decoded together at most.
const MAX_ROWS: usize = 256;
/// Judged rollouts that wait for the archive at most.
pub(super) const ARCHIVE_BACKLOG: usize = 256;

/// What every role is built from.
struct Stage {
    queue: Arc<dyn Queue>,
    engine: Engine,
    models: ModelStore,
    initial: Arc<Snapshot>,
    release: Release,
}

/// Runs all roles until the learner ends, then stops the others.
///
/// # Errors
/// The first role that failed.
pub async fn run(resolved: &Resolved, parts: Parts, shutdown: Shutdown) -> anyhow::Result<(Ended, State)> {
    let run = &resolved.run;
    let stage = stage(run, &parts)?;
    let (archive_sender, archive_task) = archive(run)?;
    let (progress, watching) = watch::channel(None);
    let learner = learner(resolved, &parts, &stage, progress)?;
    let mut roles = JoinSet::new();
    let stop = Shutdown::default(); // the roles around the learner end after it
    spawn_coordinator(&mut roles, run, &stage, (&parts, watching), &stop);
    spawn_rollout(&mut roles, run, &stage, &parts, &stop);
    spawn_judge(&mut roles, run, &stage, &parts, (archive_sender, &stop));
    drop(parts);
    let learning = joust_learner::run(learner.0, learner.1, shutdown);
    tokio::pin!(learning);
    let result = loop {
        tokio::select! {
            result = &mut learning => break result.map_err(anyhow::Error::from),
            Some(role) = roles.join_next() => {
                // A role that has nothing left to do ends quietly; one that failed ends the run.
                if let Err(error) = role.context("a role panicked").and_then(|result| result) {
                    break Err(error);
                }
            }
        }
    };
    stop.trigger();
    let mut first = result;
    while let Some(role) = roles.join_next().await {
        // What failed first is the cause; what fails while ending is its consequence.
        if let (true, Err(error)) = (first.is_ok(), role.context("a role panicked").and_then(|result| result)) {
            first = Err(error);
        }
    }
    let archived = archive_task.await.context("the archive panicked").and_then(|result| result);
    if let (true, Err(error)) = (first.is_ok(), archived) {
        first = Err(error);
    }
    first
}

fn stage(run: &RunFile, parts: &Parts) -> anyhow::Result<Stage> {
    // One process holds the queue's file alone: leases only tell its own tasks apart, and end with it.
    let settings = QueueSettings { lease: Duration::from_secs(3600), ..QueueSettings::default() };
    let queue = open_embedded(&run.output.dir.join("queue.redb"), settings)?;
    let initial = parts.model.snapshot(parts.weights_hash.clone())?;
    let ema = averaged(run).then(|| initial.clone());
    let past = keeps_past(run).then(|| initial.clone());
    let id = |model: &Option<Arc<Snapshot>>| model.as_ref().map(|model| model.id.clone());
    let set = ModelSet {
        policy: initial.id.clone(),
        reference: initial.id.clone(),
        ema: id(&ema),
        past: id(&past).into_iter().collect(),
    };
    let models = ModelStore::new(Published { set, policy: initial.clone(), reference: initial.clone(), ema, past });
    Ok(Stage {
        queue,
        engine: Engine::start(parts.device.clone(), MAX_ROWS)?,
        models,
        initial,
        release: Release {
            prompts_per_step: u64::from(run.learner.prompts_per_step),
            steps: parts.steps,
            max_staleness: u64::from(run.pipeline.max_staleness),
            iteration_steps: run.learner.iteration_steps,
        },
    })
}

/// Returns whether a player or the reference needs the averaged policy.
pub(super) fn averaged(run: &RunFile) -> bool {
    run.sampling.players.contains(&Player::Ema) || run.reference.kind == ReferenceKind::Ema
}

/// Returns whether a player needs the policy of one iteration ago.
pub(super) fn keeps_past(run: &RunFile) -> bool {
    run.sampling.players.contains(&Player::Past)
}

fn spawn_coordinator(
    roles: &mut JoinSet<anyhow::Result<()>>,
    run: &RunFile,
    stage: &Stage,
    (parts, progress): (&Parts, watch::Receiver<Option<joust_core::Progress>>),
    stop: &Shutdown,
) {
    let config = joust_coordinator::Config { run: run.name.clone(), release: stage.release };
    let prompts = Arc::new(PromptStream::new(run.name.clone(), parts.prompts.clone()));
    let deps = joust_coordinator::Deps { queue: stage.queue.clone(), prompts, progress };
    let stop = stop.clone();
    roles.spawn(async move { Ok(joust_coordinator::run(config, deps, stop).await?) });
}

fn spawn_rollout(
    roles: &mut JoinSet<anyhow::Result<()>>,
    run: &RunFile,
    stage: &Stage,
    parts: &Parts,
    stop: &Shutdown,
) {
    let config = joust_rollout::Config {
        run: run.name.clone(),
        players: run.sampling.players.clone(),
        mixture_coef: run.sampling.mixture_coef,
        params: sampling(run, &parts.model),
        seed: run.seed,
        batch: run.learner.prompts_per_step as usize,
        release: stage.release,
    };
    let deps = joust_rollout::Deps {
        queue: stage.queue.clone(),
        engine: stage.engine.clone(),
        models: stage.models.clone(),
        tokenizer: parts.model.tokenizer.clone(),
    };
    let stop = stop.clone();
    roles.spawn(async move { Ok(joust_rollout::run(config, deps, stop).await?) });
}

fn spawn_judge(
    roles: &mut JoinSet<anyhow::Result<()>>,
    run: &RunFile,
    stage: &Stage,
    parts: &Parts,
    (archive, stop): (Option<mpsc::Sender<joust_judge::Judged>>, &Shutdown),
) {
    let config = joust_judge::Config {
        run: run.name.clone(),
        ask: match run.feedback.ask {
            joust_config::run::Ask::Score => Ask::Score,
            joust_config::run::Ask::Compare if run.sampling.num_generations == 2 => Ask::Compare,
            _ => Ask::Rank,
        },
        rules: rules(run),
        seed: run.seed,
        batch: run.learner.prompts_per_step as usize,
        timeout: Duration::from_secs(600),
    };
    let deps = joust_judge::Deps { queue: stage.queue.clone(), judge: parts.judge.clone(), archive };
    let stop = stop.clone();
    roles.spawn(async move { Ok(joust_judge::run(config, deps, stop).await?) });
}

fn learner(
    resolved: &Resolved,
    parts: &Parts,
    stage: &Stage,
    progress: watch::Sender<Option<joust_core::Progress>>,
) -> anyhow::Result<(joust_learner::Config, joust_learner::Deps)> {
    let run = &resolved.run;
    let updates = parts.steps * u64::from(run.learner.epochs_per_iteration);
    let settings = optim::settings(run.learner.learning_rate, &run.learner.optim, updates);
    let model = &parts.model;
    let mut master = Master::new(&model.config, &model.weights, settings);
    if averaged(run) {
        master.keep_average(run.sampling.ema_decay);
    }
    if keeps_past(run) {
        master.keep_past();
    }
    let frozen = model.weights.snapshot(model.config.dtype.kind());
    let evaluator = Evaluator {
        engine: stage.engine.clone(),
        tokenizer: model.tokenizer.clone(),
        judge: parts.eval_judge.clone(),
        prompts: parts.prompts.eval().iter().take(run.eval.prompts as usize).cloned().collect(),
        params: sampling(run, model),
        seed: run.seed,
    };
    let mut trainer = Trainer::new(master, objective(run)?, parts.device.clone());
    if matches!(run.loss.name, LossName::Ppo | LossName::Dro) {
        let (config, weights) = scored(model.config.clone(), &model.weights, model.tokenizer.pad_id());
        trainer.critic = Some(Master::new(&config, &weights, settings));
    }
    let observer = RunObserver::new(run, parts, evaluator, stage.initial.clone());
    let deps = joust_learner::Deps {
        queue: stage.queue.clone(),
        trainer,
        reference: Llama::new(&model.config, &frozen)?,
        initial: stage.initial.clone(),
        models: stage.models.clone(),
        progress,
        observer: Box::new(observer),
    };
    Ok((learner_config(resolved, parts), deps))
}

fn learner_config(resolved: &Resolved, parts: &Parts) -> joust_learner::Config {
    let run = &resolved.run;
    joust_learner::Config {
        run: run.name.clone(),
        seed: run.seed,
        settings_hash: resolved.hash.clone(),
        prompts_per_step: u64::from(run.learner.prompts_per_step),
        micro_batch: run.learner.micro_batch as usize,
        steps: parts.steps,
        epochs: u64::from(run.learner.epochs_per_iteration),
        iteration_steps: run.learner.iteration_steps,
        reference: match run.reference.kind {
            ReferenceKind::Initial => joust_learner::Reference::Initial,
            ReferenceKind::Previous => joust_learner::Reference::Previous,
            ReferenceKind::Ema => joust_learner::Reference::Average,
            ReferenceKind::None => joust_learner::Reference::None,
        },
        max_staleness: u64::from(run.pipeline.max_staleness),
        replay: joust_learner::Replay {
            ratio: run.pairing.replay.ratio,
            capacity: run.pairing.replay.capacity as usize,
            order: match run.pairing.replay.order {
                joust_config::run::ReplayOrder::Recent => joust_pairs::replay::Order::Recent,
                joust_config::run::ReplayOrder::Uniform => joust_pairs::replay::Order::Uniform,
                joust_config::run::ReplayOrder::Margin => joust_pairs::replay::Order::Margin,
            },
        },
        checkpoint_every: run.learner.checkpoint_every,
        keep_checkpoints: run.learner.keep_checkpoints as usize,
        checkpoints: run.output.dir.join("checkpoints"),
        eval_every: run.eval.every,
        stop: joust_learner::StopRules {
            max_kl: run.eval.stop.max_kl,
            patience: u64::from(run.eval.stop.patience),
            max_seconds: run.eval.stop.max_seconds,
        },
    }
}

fn objective(run: &RunFile) -> anyhow::Result<Objective> {
    let (name, params) = (run.loss.written_name(), &run.loss.params);
    Ok(match LossSpec::of(run.loss.name).map(|spec| spec.reads) {
        Some(Reads::Opponent | Reads::Group) => Objective::Gradient(GradientLoss::from_name(&name, params)?),
        Some(Reads::Answers) => Objective::Single(SingleLoss::from_name(&name, params)?),
        Some(Reads::List) => Objective::List(ListLoss::from_name(&name, params)?),
        _ => Objective::Pair(PairLoss::from_name(&name, params)?),
    })
}

fn rules(run: &RunFile) -> PairingRules {
    PairingRules {
        select: match run.pairing.select {
            joust_config::run::Select::MaxRandom => Select::MaxRandom,
            joust_config::run::Select::AllPairs => Select::AllPairs,
            joust_config::run::Select::Rejection => Select::Rejection,
            joust_config::run::Select::SweetSpot => Select::SweetSpot,
            joust_config::run::Select::Ranked => Select::Ranked,
            joust_config::run::Select::WinRate => Select::WinRate,
            joust_config::run::Select::Opponent => Select::Opponent,
            joust_config::run::Select::Single => Select::Single,
            joust_config::run::Select::List => Select::List,
            joust_config::run::Select::BestWorst => Select::BestWorst,
        },
        filters: run
            .pairing
            .filters
            .iter()
            .map(|filter| match filter {
                joust_config::run::Filter::Ties => Filter::Ties,
                joust_config::run::Filter::Identical => Filter::Identical,
                joust_config::run::Filter::Truncated => Filter::Truncated,
            })
            .collect(),
        label: match run.feedback.label {
            joust_config::run::Label::Soft => Label::Soft,
            joust_config::run::Label::Sampled => Label::Sampled,
            joust_config::run::Label::Hard => Label::Hard,
        },
        missing_eos_penalty: run.sampling.missing_eos_penalty,
        score_scale: run.training_judge().map_or(1.0, |judge| judge.scale()),
        threshold: run.pairing.threshold,
        seed: run.seed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use joust_config::{
        run::{LOSSES, Loss, Reads},
        works::name_of,
    };
    use joust_losses::{GradientLoss, ListLoss, PairLoss, SingleLoss};

    #[test]
    fn run_file_and_losses_name_the_same_losses_and_keys() {
        let ours: BTreeSet<(String, Vec<&str>, bool, bool)> = LOSSES
            .iter()
            .map(|spec| {
                let keys = spec.keys.iter().map(|key| key.key).collect();
                (name_of(&spec.name), keys, spec.reads == Reads::ScoredPairs, spec.reference)
            })
            .collect();
        let mut theirs = BTreeSet::new();
        for (name, keys, reference) in PairLoss::ALL {
            let params = keys.iter().map(|key| ((*key).to_owned(), 0.2)).collect();
            let loss = PairLoss::from_name(name, &params).expect("its own keys");
            theirs.insert(((*name).to_owned(), keys.to_vec(), loss.needs_scores(), *reference));
        }
        for (name, keys, reference) in ListLoss::ALL.iter().chain(SingleLoss::ALL) {
            theirs.insert(((*name).to_owned(), keys.to_vec(), false, *reference));
        }
        for (name, keys) in GradientLoss::ALL {
            theirs.insert((name.to_owned(), keys.to_vec(), false, true));
        }
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 47);
    }

    #[test]
    fn every_loss_has_a_line_in_the_documentation() {
        let page = std::fs::read_to_string("../../docs/algorithms.md").expect("the page");
        let gradients = GradientLoss::ALL.iter().map(|(name, _)| name);
        let lists = ListLoss::ALL.iter().map(|(name, ..)| name);
        let single = SingleLoss::ALL.iter().map(|(name, ..)| name);
        for name in PairLoss::ALL.iter().map(|(name, ..)| name).chain(lists).chain(single).chain(gradients) {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn every_default_is_in_its_domain() {
        for key in LOSSES.iter().flat_map(|spec| spec.keys) {
            assert!(key.domain.holds(key.default), "{key:?}");
        }
        assert_eq!(Loss::default().written_name(), "dpo");
    }
}
