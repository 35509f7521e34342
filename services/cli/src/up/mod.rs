//! `joust up` and `joust down`: a whole cluster on this machine, Redis included, each part a process of its own.

mod files;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use joust_core::Shutdown;
use joust_proto::coordinator::v1::ListWorkersRequest;
use joust_rpc::{Caller, ClientConfig, deploy::stop_on_signal, sized::coordinator_client};
use tokio::time::Instant;

use crate::{
    args::{DownArgs, UpArgs},
    remote::{CLUSTER_FILE, Cluster},
};
use files::Layout;
pub use process::PROCESSES;
use process::{Program, Supervised};

/// How long Redis may take to listen.
const REDIS: Duration = Duration::from_secs(10);
/// How long all parts may take to be there.
const START: Duration = Duration::from_secs(60);
/// How long parts may take to end by themselves.
const END: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Runs `joust up`: until Ctrl-C or `joust down`, or until all is there with `--detach`.
///
/// # Errors
/// A cluster that is up already, a program that is missing, or parts that do not come.
pub async fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    let folder = std::path::absolute(&args.folder)?;
    if let Some(pid) = running(&folder) {
        anyhow::bail!(
            "a cluster is up in {} (process {pid}); end it with `joust down --folder {}`",
            folder.display(),
            args.folder.display()
        );
    }
    let bins = bins()?;
    for root in &args.roots {
        ensure!(root.is_dir(), "--root {} is no folder that is there", root.display());
    }
    if args.detach {
        return detached(&folder).await;
    }
    process::end_left(&folder)?;
    let layout = Layout::make(&folder, &args)?;
    let shutdown = Shutdown::default();
    stop_on_signal(shutdown.clone());
    let mut parts = Supervised::new(&folder);
    let kept = keep(&mut parts, (&bins, &layout), &args, &shutdown).await;
    if kept.is_ok() {
        eprintln!("ending the cluster: steps under way are finished, what waits stays in {}", folder.display());
    }
    parts.stop(END).await;
    layout.retract();
    kept.map(|()| ExitCode::SUCCESS)
}

/// Starts the parts and keeps them up until a stop is asked for; who called ends them, also after an error.
async fn keep(
    parts: &mut Supervised,
    (bins, layout): (&Path, &Layout),
    args: &UpArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    start_all(parts, (bins, layout), args).await?;
    // Written now, so that `joust down` ends also what does not come up.
    let cluster = layout.publish()?;
    let ready = all_there(&cluster, (args.learners + args.judges + args.rollouts) as usize);
    tokio::pin!(ready);
    let mut told = false;
    loop {
        tokio::select! {
            found = &mut ready, if !told => {
                found?;
                told = true;
                println!(
                    "cluster ready: coordinator={} rollouts={} judges={} learners={} folder={}",
                    cluster.coordinator, args.rollouts, args.judges, args.learners, layout.folder.display()
                );
            }
            () = tokio::time::sleep(LOOK) => parts.restart_ended()?,
            () = shutdown.wait() => return Ok(()),
        }
    }
}

/// Starts Redis, and the others as soon as it listens.
async fn start_all(parts: &mut Supervised, (bins, layout): (&Path, &Layout), args: &UpArgs) -> anyhow::Result<()> {
    parts.start(Program::redis(layout))?;
    let listens = || std::net::TcpStream::connect(("127.0.0.1", layout.redis_port)).is_ok();
    let missing = || format!("Redis did not come up; {} says why", layout.folder.join("log/redis.log").display());
    wait_for(REDIS, "Redis", listens).await.with_context(missing)?;
    parts.start(Program::joust(bins, layout, ("coordinator", "coordinator")))?;
    for (role, count) in [("learner", args.learners), ("judge", args.judges), ("rollout", args.rollouts)] {
        for index in 0..count {
            parts.start(Program::joust(bins, layout, (role, &format!("{role}-{index}"))))?;
        }
    }
    Ok(())
}

/// Runs `joust down`.
///
/// # Errors
/// A cluster that does not end.
pub async fn down(args: DownArgs) -> anyhow::Result<ExitCode> {
    let folder = std::path::absolute(&args.folder)?;
    match running(&folder) {
        None => {
            process::end_left(&folder)?;
            println!("no cluster is up in {}", folder.display());
        }
        Some(pid) => {
            process::signal(pid, "TERM")?;
            wait_for(END + Duration::from_secs(30), "the end of the cluster", || !process::is_alive(pid)).await?;
            println!("cluster ended: what waits in its runs stays in {}", folder.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the process that keeps a cluster up.
fn running(folder: &Path) -> Option<u32> {
    let cluster = Cluster::read(&folder.join(CLUSTER_FILE)).ok()?;
    Some(cluster.pid).filter(|pid| process::is_alive(*pid))
}

/// Starts the cluster in a process of its own, and waits until all is there.
async fn detached(folder: &Path) -> anyhow::Result<ExitCode> {
    let log = folder.join("log");
    fs::create_dir_all(&log).with_context(|| format!("failed to create {}", log.display()))?;
    let path = log.join("up.log");
    let file = fs::File::create(&path).with_context(|| format!("failed to write {}", path.display()))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"));
    command.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().context("failed to start the cluster")?;
    let deadline = Instant::now() + START + START;
    loop {
        let told = fs::read_to_string(&path).unwrap_or_default();
        if let Some(line) = told.lines().find(|line| line.starts_with("cluster ready")) {
            println!("{line}");
            return Ok(ExitCode::SUCCESS);
        }
        let ended = child.try_wait()?;
        ensure!(
            ended.is_none() && Instant::now() < deadline,
            "the cluster did not come up; {} says: {}",
            path.display(),
            told.trim()
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the coordinator answers and so many workers are members.
async fn all_there(cluster: &Cluster, wanted: usize) -> anyhow::Result<()> {
    let config: ClientConfig = cluster.client()?;
    let mut client = coordinator_client(Caller::new(config)?);
    let deadline = Instant::now() + START;
    loop {
        let found = client.list_workers(ListWorkersRequest::default()).await;
        let count = found.as_ref().map_or(0, |answer| answer.get_ref().workers.len());
        if count >= wanted {
            return Ok(());
        }
        let said = found.err().map(|status| status.message().to_owned()).unwrap_or_default();
        ensure!(
            Instant::now() < deadline,
            "only {count} of {wanted} workers came in {} s {said}; look into {}",
            START.as_secs(),
            cluster.folder.join("log").display()
        );
        tokio::time::sleep(LOOK).await;
    }
}

async fn wait_for(time: Duration, what: &str, mut there: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + time;
    while !there() {
        ensure!(Instant::now() < deadline, "waited {} s for {what}", time.as_secs());
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Returns the folder of joust's programs: that of this one.
fn bins() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where joust is")?;
    let folder = own.parent().context("joust lies in no folder")?.to_owned();
    for name in ["joust-coordinator", "joust-rollout", "joust-judge", "joust-learner"] {
        let path = folder.join(name);
        ensure!(path.is_file(), "{} is missing; build it with `cargo build --workspace`", path.display());
    }
    Ok(folder)
}
