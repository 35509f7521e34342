//! `joust-coordinator`: the coordinator of a cluster.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use joust_config::{Deployment, load};
use joust_coordinator::{Config, Deps, open_queue, serve};
use joust_core::Shutdown;
use joust_rpc::ServerConfig;

/// How long it says that it goes before it refuses calls.
const NOTICE: Duration = Duration::from_millis(500);

/// The coordinator of a joust cluster: runs, members and prompts.
#[derive(Debug, Parser)]
#[command(name = "joust-coordinator", version)]
struct Args {
    /// The deployment file.
    #[arg(long, default_value = "joust.toml")]
    deployment: PathBuf,
    /// Override a key of the deployment file; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(args: &Args) -> anyhow::Result<()> {
    let deployment = load::<Deployment>(&args.deployment, &args.overrides)?.run;
    let _guard = joust_telemetry::init(joust_rpc::deploy::telemetry(&deployment, "joust-coordinator", None))?;
    let listen = deployment.listen.coordinator.clone().context("the deployment file names no listen.coordinator")?;
    let config = Config {
        roots: deployment.folders.roots.clone(),
        runs: deployment.folders.runs.clone().context("the deployment file names no folders.runs")?,
        state: deployment.folders.state.clone().context("the deployment file names no folders.state")?,
        // It is alone under its name: nothing has to look for another one first.
        server: ServerConfig { drain_notice: NOTICE, ..joust_rpc::deploy::server_config(&deployment, &listen)? },
    };
    let queue = open_queue(&deployment).await?;
    let listener =
        tokio::net::TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let shutdown = Shutdown::default();
    joust_rpc::deploy::stop_on_signal(shutdown.clone());
    serve(config, Deps { queue, listener }, shutdown).await?;
    Ok(())
}
