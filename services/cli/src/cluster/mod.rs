//! The workers of a cluster: each registers with the coordinator and serves the runs that it is told to.

mod follow;
mod judge;
mod judge_models;
mod learner;
mod membership;
mod rollout;
mod runs;
pub mod transfer;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use joust_config::{Deployment, DeviceKind, load};
use joust_core::Shutdown;
use joust_queue::Queue;
use joust_rpc::{
    Caller, ServerConfig, Services,
    deploy::{client_config, server_config, stop_on_signal, telemetry},
};
use tokio::net::TcpListener;

use crate::{BAD_INPUT, device, explained, optim};
use membership::{Membership, Reporter};

/// How long a worker says that it goes before it refuses calls: the coordinator stops naming it at once.
const NOTICE: Duration = Duration::from_millis(500);

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers prompts.
    Rollout,
    /// Judges answers.
    Judge,
    /// Trains a run.
    Learner,
}

/// A worker of a joust cluster.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The deployment file.
    #[arg(long, default_value = "joust.toml")]
    deployment: PathBuf,
    /// Override a key of the deployment file; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Stable name of this worker, for example that of its pod.
    #[arg(long, env = "JOUST_WORKER")]
    name: String,
    /// Memory that models may take in MiB; without it there is no bound.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    budget_mib: u64,
}

/// What the runs of a worker share.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) deployment: Deployment,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) reporter: Reporter,
}

impl Worker {
    /// Sets up calls to another service.
    pub(crate) fn caller(&self, address: &str) -> anyhow::Result<Caller> {
        Ok(Caller::new(client_config(&self.deployment, address)?)?)
    }

    /// Returns the folder below which a learner's files can be taken as they are, if this process sees it.
    pub(crate) fn shared(&self) -> Option<PathBuf> {
        let folders = &self.deployment.folders;
        folders.runs.as_deref().filter(|_| folders.share_weights).and_then(|runs| runs.canonicalize().ok())
    }

    /// Returns a folder for what is fetched.
    pub(crate) fn cache(&self) -> PathBuf {
        let cache = self.deployment.folders.cache.clone();
        cache.unwrap_or_else(|| std::env::temp_dir().join("joust")).join(&self.name)
    }
}

/// Runs a worker until it is told to stop.
pub fn main_of(role: Role) -> ExitCode {
    let args = Args::parse();
    match start(role, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explained(&error));
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn start(role: Role, args: &Args) -> anyhow::Result<()> {
    let deployment = load::<Deployment>(&args.deployment, &args.overrides)?.run;
    let service = match role {
        Role::Rollout => "joust-rollout",
        Role::Judge => "joust-judge",
        Role::Learner => "joust-learner",
    };
    let _guard = joust_telemetry::init(telemetry(&deployment, service, Some(&args.name)))?;
    let index = deployment.device.indices.first().map_or(0, |index| *index as usize);
    device::choose(match deployment.device.kind {
        DeviceKind::Auto => device::Choice::Auto,
        DeviceKind::Cpu => device::Choice::Cpu,
        DeviceKind::Cuda => device::Choice::Cuda(index),
    })?;
    optim::set_threads(deployment.threads.tensor);
    let threads = if deployment.threads.runtime == 0 { 2 } else { deployment.threads.runtime as usize };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(serve(role, args, deployment))
}

async fn serve(role: Role, args: &Args, deployment: Deployment) -> anyhow::Result<()> {
    let (key, listen) = match role {
        Role::Rollout => ("listen.rollout", &deployment.listen.rollout),
        Role::Judge => ("listen.judge", &deployment.listen.judge),
        Role::Learner => ("listen.learner", &deployment.listen.learner),
    };
    let listen = listen.clone().with_context(|| format!("the deployment file names no {key}"))?;
    let config = ServerConfig { drain_notice: NOTICE, ..server_config(&deployment, &listen)? };
    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = address(&deployment, &listener, config.tls.is_some())?;
    let coordinator = deployment.connect.coordinator.clone();
    let coordinator = coordinator.context("the deployment file names no connect.coordinator")?;
    let coordinator = Caller::new(client_config(&deployment, &coordinator)?)?;
    let queue = joust_coordinator::open_queue(&deployment).await?;
    let shutdown = Shutdown::default();
    stop_on_signal(shutdown.clone());
    let budget_bytes = args.budget_mib << 20;
    let membership = Membership { coordinator, worker: args.name.clone(), role, address, budget_bytes };
    let (reporter, assignments) = membership.start(shutdown.clone());
    let worker = Arc::new(Worker { name: args.name.clone(), deployment, queue, reporter });
    // Calls are served until the runs are left, and a little longer.
    let left = Shutdown::default();
    let (services, work): (Services, runs::Work) = match role {
        Role::Rollout => rollout::work(&worker, assignments, (budget_bytes, shutdown.clone()))?,
        Role::Judge => judge::work(&worker, assignments, shutdown.clone()),
        Role::Learner => learner::work(&worker, assignments, shutdown.clone()),
    };
    let serving = tokio::spawn(joust_rpc::serve(listener, config, services, left.clone()));
    work.await;
    left.trigger();
    serving.await.context("the server panicked")??;
    Ok(())
}

/// Returns where others reach this process.
fn address(deployment: &Deployment, listener: &TcpListener, tls: bool) -> anyhow::Result<String> {
    let own = listener.local_addr()?;
    let scheme = if tls { "https" } else { "http" };
    let host = match &deployment.listen.advertise {
        Some(whole) if names_port(whole) => return Ok(format!("{scheme}://{whole}")),
        Some(host) => host.clone(),
        None if own.ip().is_unspecified() => hostname()?,
        None => own.ip().to_string(),
    };
    Ok(format!("{scheme}://{host}:{}", own.port()))
}

/// Returns whether `host:port` or `[address]:port` is meant, not a host alone.
fn names_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'))
    })
}

fn hostname() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("this machine does not tell its name; write listen.advertise")?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::names_port;

    #[test]
    fn an_advertised_host_may_name_its_port() {
        assert!(names_port("host:7000") && names_port("127.0.0.1:7000") && names_port("[::1]:7000"));
        assert!(!names_port("host") && !names_port("::1") && !names_port("[::1]") && !names_port("host:none"));
    }
}
