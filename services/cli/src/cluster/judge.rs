//! The judge worker: one judge loop a run, and the judges by name.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use joust_core::Shutdown;
use joust_judge::server::{Server, Serving};
use joust_judges::build;
use joust_proto::coordinator::v1::Assignment;
use joust_rpc::{Services, sized::judge_server};
use tokio::sync::watch;

use super::{
    Worker, judge_models,
    runs::{self, Served, Work},
};
use crate::{
    device,
    run::{folder::JUDGED, roles},
    scorer,
};

pub(super) fn work(
    worker: &Arc<Worker>,
    assignments: watch::Receiver<Vec<Assignment>>,
    shutdown: Shutdown,
) -> (Services, Work) {
    let server = Server::default();
    let services = Services::default().with(judge_server(server.clone()));
    let worker = worker.clone();
    let serve = move |served: Served| judge_for(worker.clone(), server.clone(), served);
    (services, Box::pin(runs::each(assignments, shutdown, false, serve)))
}

/// Judges a run's rollouts until it is left.
async fn judge_for(worker: Arc<Worker>, server: Server, served: Served) -> anyhow::Result<()> {
    let (run, steps) = (served.resolved.run.clone(), served.assignment.borrow().steps);
    let Some(local) = judge_models::local(&worker, &served).await? else { return Ok(()) };
    let serving = tokio::task::spawn_blocking({
        let run = run.clone();
        move || -> anyhow::Result<Serving> {
            let opened = scorer::open_all(&local, &run.output.dir, &device::chosen())?;
            let judges =
                run.judge.iter().map(|judge| Ok((judge.name().to_owned(), build(judge, &run.judge, &opened)?)));
            let kinds = run.judge.iter().map(|judge| (judge.name().to_owned(), judge.kind().to_owned())).collect();
            let main = run.training_judge().context("the run file names no judge")?.name().to_owned();
            Ok(Serving { judges: judges.collect::<anyhow::Result<BTreeMap<_, _>>>()?, main, kinds })
        }
    });
    let serving = serving.await.context("opening the judges panicked")??;
    let judge = serving.judges[&serving.main].clone();
    server.serve(served.run().clone(), serving);
    worker.reporter.progress(served.run(), |told| told.recovered = true);
    // Each worker has an archive of its own: a file has one writer.
    let (archive, archived) = roles::archive_of(&run, &run.output.dir.join(JUDGED).join(&worker.name))?;
    let config = roles::judge_config(&run, steps, &worker.name);
    let deps = joust_judge::Deps { queue: worker.queue.clone(), judge, archive };
    let judged = joust_judge::run(config, deps, served.stop.clone()).await;
    server.forget(served.run());
    worker.reporter.forget(served.run());
    let archived = archived.await.context("the archive panicked")?;
    judged?;
    archived
}
