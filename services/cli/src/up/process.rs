//! The processes of a local cluster: started, started again when they end, and ended together.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::files::Layout;

/// File with the processes of a cluster by name, for `joust status` and for what a kill of `joust up` leaves.
pub const PROCESSES: &str = "processes.json";
/// First pause before a part is started again; each later one is twice as long, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// A part that lived so long begins again with the first pause.
const STEADY: Duration = Duration::from_secs(10);

/// A part and how it is started.
pub(super) struct Program {
    name: String,
    path: PathBuf,
    args: Vec<String>,
    log: PathBuf,
}

impl Program {
    /// The cluster's Redis.
    pub(super) fn redis(layout: &Layout) -> Self {
        let conf = layout.folder.join("redis/redis.conf").display().to_string();
        Self {
            name: "redis".into(),
            path: "redis-server".into(),
            args: vec![conf],
            log: layout.folder.join("log/redis.log"),
        }
    }

    /// A program of joust's, of a role and with a name.
    pub(super) fn joust(bins: &Path, layout: &Layout, (role, name): (&str, &str)) -> Self {
        let mut args = vec!["--deployment".into(), layout.folder.join("joust.toml").display().to_string()];
        if role != "coordinator" {
            args.extend(["--name".into(), name.to_owned()]);
        }
        let log = layout.folder.join(format!("log/{name}.log"));
        Self { name: name.to_owned(), path: bins.join(format!("joust-{role}")), args, log }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("failed to write {}", self.log.display()))?;
        let mut command = Command::new(&self.path);
        // A Ctrl-C is for `joust up`, which ends the parts in their order.
        command.args(&self.args).process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("failed to start {}", self.path.display()))
    }
}

struct Part {
    program: Program,
    child: Child,
    began: Instant,
    pause: Duration,
    /// When it ended, if it did.
    ended: Option<Instant>,
}

/// The parts, in the order of their start.
pub(super) struct Supervised {
    folder: PathBuf,
    parts: Vec<Part>,
}

impl Supervised {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), parts: Vec::new() }
    }

    pub(super) fn start(&mut self, program: Program) -> anyhow::Result<()> {
        let child = program.spawn()?;
        self.parts.push(Part { program, child, began: Instant::now(), pause: PAUSE, ended: None });
        self.note()
    }

    /// Starts those again that ended, after a pause that grows.
    pub(super) fn restart_ended(&mut self) -> anyhow::Result<()> {
        let mut changed = false;
        for part in &mut self.parts {
            if part.ended.is_none() {
                let Some(status) = part.child.try_wait()? else { continue };
                tracing::warn!(part = part.program.name, %status, "a part of the cluster ended; it is started again");
                part.pause = if part.began.elapsed() > STEADY { PAUSE } else { (part.pause * 2).min(LONGEST) };
                part.ended = Some(Instant::now());
            }
            if part.ended.is_some_and(|at| at.elapsed() >= part.pause) {
                part.child = part.program.spawn()?;
                (part.began, part.ended) = (Instant::now(), None);
                changed = true;
            }
        }
        if changed { self.note() } else { Ok(()) }
    }

    /// Ends all: workers first, so that what they finish is still taken, Redis last.
    pub(super) async fn stop(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let is_base = |part: &Part| ["redis", "coordinator"].contains(&part.program.name.as_str());
        let (base, workers): (Vec<Part>, Vec<Part>) = std::mem::take(&mut self.parts).into_iter().partition(is_base);
        for group in std::iter::once(workers).chain(base.into_iter().rev().map(|part| vec![part])) {
            end(group, deadline).await;
        }
        // What is not there names nobody.
        let _ = fs::remove_file(self.folder.join(PROCESSES));
    }

    fn note(&self) -> anyhow::Result<()> {
        let pids: BTreeMap<&str, u32> =
            self.parts.iter().map(|part| (part.program.name.as_str(), part.child.id())).collect();
        crate::run::folder::write_atomically(&self.folder.join(PROCESSES), &serde_json::to_string(&pids)?)
    }
}

async fn end(mut parts: Vec<Part>, deadline: Instant) {
    for part in &parts {
        if part.ended.is_none() {
            // One that has just ended takes no signal.
            let _ = signal(part.child.id(), "TERM");
        }
    }
    while parts.iter_mut().any(|part| matches!(part.child.try_wait(), Ok(None))) {
        if Instant::now() > deadline {
            for part in &mut parts {
                tracing::warn!(part = part.program.name, "a part of the cluster did not end by itself");
                // One that has ended meanwhile cannot be killed, and need not be.
                let _ = part.child.kill();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends what an earlier `joust up` left that was killed itself.
pub(super) fn end_left(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(PROCESSES);
    let Ok(text) = fs::read(&path) else { return Ok(()) };
    let pids: BTreeMap<String, u32> = serde_json::from_slice(&text).unwrap_or_default();
    for (name, pid) in pids {
        // Another process may have the number by now.
        if is_ours(pid, folder) {
            eprintln!("ending {name} (process {pid}) of a cluster that was killed");
            // It may have ended meanwhile.
            let _ = signal(pid, "KILL");
            let deadline = Instant::now() + Duration::from_secs(10);
            while is_ours(pid, folder) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))
}

/// Returns whether a process was started with a file of this cluster.
fn is_ours(pid: u32, folder: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    // Redis names itself by its port instead, so it is known by where it works.
    let works_there = || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let is_joust = line.contains("joust-") && line.contains(&folder.display().to_string());
    is_joust || (line.starts_with("redis-server") && works_there())
}

/// Returns whether a process is there and has not ended.
pub(super) fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Sends a signal by name.
pub(super) fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "process {pid} takes no signal {name}");
    Ok(())
}
