//! `joust status`: members and runs of a cluster.

use std::{collections::BTreeMap, process::ExitCode};

use joust_proto::coordinator::v1 as wire;
use serde_json::json;

use super::{Cluster, connect, runs, said};
use crate::{args::StatusArgs, up::PROCESSES};

/// Runs the verb.
///
/// # Errors
/// No cluster, or one that does not answer.
pub async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::find(args.at.cluster.folder())?;
    let mut client = connect(args.at.cluster.folder())?;
    let workers = client.list_workers(wire::ListWorkersRequest::default()).await.map_err(said)?.into_inner().workers;
    let listed = client.list_runs(wire::ListRunsRequest::default()).await.map_err(said)?.into_inner().runs;
    let pids = std::fs::read(cluster.folder.join(PROCESSES)).unwrap_or_default();
    let pids: BTreeMap<String, u32> = serde_json::from_slice(&pids).unwrap_or_default();
    let role = |number: i32| {
        let known = wire::Role::try_from(number).unwrap_or_default();
        known.as_str_name().trim_start_matches("ROLE_").to_lowercase()
    };
    if args.at.json {
        let workers: Vec<_> = workers
            .iter()
            .map(|member| json!({ "worker": member.worker, "role": role(member.role), "address": member.address, "runs": member.run_ids, "draining": member.draining }))
            .collect();
        let listed: Vec<_> = listed.iter().map(runs::of).collect();
        println!(
            "{}",
            json!({ "coordinator": cluster.coordinator, "workers": workers, "runs": listed, "processes": pids })
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("coordinator {}", cluster.coordinator);
    for member in workers {
        let pid = pids.get(&member.worker).map(|pid| format!("process {pid}")).unwrap_or_default();
        let draining = if member.draining { "draining" } else { "" };
        println!(
            "{:<12} {:<8} {:<28} {pid:<14} {} {draining}",
            member.worker,
            role(member.role),
            member.address,
            member.run_ids.join(", ")
        );
    }
    for run in listed {
        println!("{}", runs::line(&run));
    }
    Ok(ExitCode::SUCCESS)
}
