//! A learner that sleeps while another one takes its run over, and then wakes.

use std::{fs, time::Duration};

use joust_proto::coordinator::v1 as wire;

use crate::{
    books,
    harness::{Cluster, LIMIT, Size, accounts, run_now, signal, wait_for, wait_until_done},
    twin,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stopped_learner_that_wakes_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    twin::inputs(&root);
    let size = Size { rollouts: 1, judges: 1, learners: 2 };
    let Some(cluster) = Cluster::start(&folder.path().join("cluster"), &root, size) else { return };
    let alone = twin::alone(&root, "twin");
    twin::submit(&cluster, &root, "twin");
    let mut client = cluster.client();
    let at_work = wait_for("three steps", LIMIT, async || {
        let run = run_now(&mut client, "twin").await?;
        let workers = client.list_workers(wire::ListWorkersRequest { run_id: "twin".into(), ..Default::default() });
        let learner =
            workers.await.ok()?.into_inner().workers.into_iter().find(|member| member.role() == wire::Role::Learner)?;
        (run.steps_done >= 3).then_some((learner.worker, run.steps_done))
    });
    let (learner, done) = at_work.await;
    let process = cluster.processes()[&learner];
    signal("STOP", process);
    let other = wait_for("steps of another learner", LIMIT, async || {
        let run = run_now(&mut client, "twin").await?;
        let workers = client.list_workers(wire::ListWorkersRequest { run_id: "twin".into(), ..Default::default() });
        let found = workers
            .await
            .ok()?
            .into_inner()
            .workers
            .into_iter()
            .find(|member| member.role() == wire::Role::Learner && member.worker != learner)?;
        (run.steps_done > done + 1).then_some(found.worker)
    });
    assert_ne!(other.await, learner);
    signal("CONT", process);
    wait_until_done(&cluster, "twin", LIMIT).await;
    // It has woken and found that it is not wanted before all is compared.
    let log = cluster.folder.join(format!("log/{learner}.log"));
    let told = wait_for("the word of the one that woke", Duration::from_secs(20), async || {
        let told = fs::read_to_string(&log).ok()?;
        told.contains("fence").then_some(told)
    });
    told.await;
    twin::same(&cluster, "twin", &alone);
    books::balance(&accounts(&cluster, "twin").await, twin::STEPS * twin::PROMPTS);
}
