//! Models of judges: those that this machine has below its roots as they are, the others from the run's learner.

use std::path::{Path, PathBuf};

use anyhow::Context;
use joust_config::judge::JudgeConfig;
use joust_proto::learner::v1::ModelPart;
use joust_rpc::sized::learner_client;

use super::{
    Worker,
    runs::Served,
    transfer::{Wanted, fetch},
};

/// Returns a run's judges with models that are on this machine, to open them; waits for the run's learner where one is to be fetched. What a
/// judge is called and hashed by is the run file's. `None` when the run is left before.
///
/// # Errors
/// A learner that cannot be reached or sends others than it says, or a disk that takes no more.
pub(super) async fn local(worker: &Worker, served: &Served) -> anyhow::Result<Option<Vec<JudgeConfig>>> {
    tokio::select! {
        judges = fetched(worker, served) => judges.map(Some),
        () = served.stop.wait() => Ok(None),
    }
}

async fn fetched(worker: &Worker, served: &Served) -> anyhow::Result<Vec<JudgeConfig>> {
    let mut judges = served.resolved.run.judge.clone();
    for judge in &mut judges {
        let name = judge.name().to_owned();
        let Some(model) = judge.model_mut() else { continue };
        if !is_below(model, &worker.deployment.folders.roots) {
            *model = of_learner(worker, served, &name).await?;
        }
    }
    Ok(judges)
}

/// Fetches the model of a judge from whoever trains the run.
async fn of_learner(worker: &Worker, served: &Served, judge: &str) -> anyhow::Result<PathBuf> {
    let folder = worker.cache().join(served.run().as_str()).join(format!("judge-{judge}"));
    let (mut assignment, shared) = (served.assignment.clone(), worker.shared());
    loop {
        let address = assignment.wait_for(|assignment| !assignment.learner_address.is_empty()).await;
        let address = address.context("the run was left")?.learner_address.clone();
        let mut client = learner_client(worker.caller(&address)?);
        let wanted = Wanted { run: served.run(), part: ModelPart::Judge, model: None, judge };
        tokio::select! {
            found = fetch(&mut client, wanted, (&folder, shared.as_deref())) => {
                found?;
                return Ok(folder);
            }
            // Another learner has the run now.
            _ = assignment.wait_for(|now| now.learner_address != address) => {}
        }
    }
}

fn is_below(path: &Path, roots: &[PathBuf]) -> bool {
    let real = path.canonicalize();
    real.is_ok_and(|real| roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| real.starts_with(root)))
}
