//! The rollout worker: one sampling loop a run, on one engine, with models that follow the run's learner.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use joust_core::{Player, Shutdown};
use joust_engine::Engine;
use joust_judges::build;
use joust_proto::coordinator::v1::Assignment;
use joust_rollout::{
    UnderWay,
    server::{Server, Serving},
};
use joust_rpc::{Services, sized::rollout_server};
use tokio::sync::watch;

use super::{
    Worker,
    follow::Follower,
    judge_models,
    runs::{self, Served, Work},
    transfer::NotYet,
};
use crate::{
    device,
    run::{roles, sampling},
    scorer,
};

/// Pause before a learner that is not there is asked again.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn work(
    worker: &Arc<Worker>,
    assignments: watch::Receiver<Vec<Assignment>>,
    (budget_bytes, shutdown): (u64, Shutdown),
) -> anyhow::Result<(Services, Work)> {
    let engine = Engine::start(device::chosen(), roles::MAX_ROWS)?;
    let server = Server::new(&worker.name, engine.clone(), budget_bytes, shutdown.clone());
    let services = Services::default().with(rollout_server(server.clone()));
    let worker = worker.clone();
    let serve = move |served: Served| rollout_for(worker.clone(), (engine.clone(), server.clone()), served);
    Ok((services, Box::pin(runs::each(assignments, shutdown, false, serve))))
}

/// Answers a run's prompts until it is left.
async fn rollout_for(worker: Arc<Worker>, (engine, server): (Engine, Server), served: Served) -> anyhow::Result<()> {
    let run = &served.resolved.run;
    let Some(mut follower) = first(&worker, &served).await? else { return Ok(()) };
    // Only revised answers are judged here.
    let local = match run.sampling.players.contains(&Player::Revised) {
        true => judge_models::local(&worker, &served).await?,
        false => Some(run.judge.clone()),
    };
    let Some(local) = local else { return Ok(()) };
    let (models, model) = (follower.models(), follower.model().clone());
    let steps = served.assignment.borrow().steps;
    let (params, under_way) = (sampling(run, &model.tokenizer), UnderWay::default());
    server.serve(
        run.name.clone(),
        Serving {
            models: models.clone(),
            tokenizer: model.tokenizer.clone(),
            params: params.clone(),
            mixture_coef: run.sampling.mixture_coef,
            style: run.sampling.style.clone(),
            model_bytes: model.bytes,
            under_way: under_way.clone(),
        },
    );
    worker.reporter.progress(&run.name, |told| told.recovered = true);
    let judge = || {
        let opened = scorer::open_all(&local, &run.output.dir, &device::chosen())?;
        Ok(build(run.training_judge().context("the run file names no judge")?, &run.judge, &opened)?)
    };
    let config = roles::rollout_config(run, steps, (params, &worker.name), judge)?;
    let (queue, tokenizer) = (worker.queue.clone(), model.tokenizer.clone());
    let deps = joust_rollout::Deps { queue, engine, models, tokenizer, under_way };
    let sampling = if served.assignment.borrow().by_hand {
        tokio::spawn({
            let stop = served.stop.clone();
            async move {
                stop.wait().await;
                Ok(())
            }
        })
    } else {
        tokio::spawn(joust_rollout::run(config, deps, served.stop.clone()))
    };
    tokio::pin!(sampling);
    let mut assignment = served.assignment.clone();
    let ended = loop {
        tokio::select! {
            ended = &mut sampling => break ended,
            followed = follower.follow() => {
                if let Err(error) = followed && error.downcast_ref::<NotYet>().is_none() {
                    tracing::warn!(run = %run.name, error = format!("{error:#}"), "the learner's models cannot be followed; trying again");
                }
                tokio::time::sleep(PAUSE).await;
                let address = served.assignment.borrow().learner_address.clone();
                move_to(&mut follower, &worker, &address);
            }
            Ok(()) = assignment.changed() => {
                let address = assignment.borrow_and_update().learner_address.clone();
                move_to(&mut follower, &worker, &address);
            }
        }
    };
    server.forget(&run.name);
    worker.reporter.forget(&run.name);
    Ok(ended.context("sampling panicked")??)
}

/// Follows the learner of now; the models of before stay until it is followed.
fn move_to(follower: &mut Follower, worker: &Worker, address: &str) {
    if let Err(error) = follower.move_to(worker, address) {
        tracing::warn!(address, error = format!("{error:#}"), "the learner cannot be called");
    }
}

/// Fetches what the run began with, as soon as it has a learner; `None` when the run is left before.
async fn first(worker: &Arc<Worker>, served: &Served) -> anyhow::Result<Option<Follower>> {
    let mut assignment = served.assignment.clone();
    loop {
        let address = tokio::select! {
            found = assignment.wait_for(|assignment| !assignment.learner_address.is_empty()) => match found {
                Ok(assignment) => assignment.learner_address.clone(),
                Err(_) => return Ok(None),
            },
            () = served.stop.wait() => return Ok(None),
        };
        tokio::select! {
            follower = Follower::open(worker, &served.resolved, &address) => return follower.map(Some),
            // Another learner has the run now.
            _ = assignment.wait_for(|now| now.learner_address != address) => {}
            () = served.stop.wait() => return Ok(None),
        }
    }
}
