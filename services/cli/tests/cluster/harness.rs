//! A cluster of this machine: started, asked, hurt and ended.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use joust_cli::remote::Cluster as Address;
use joust_proto::coordinator::v1::{
    self as wire, RunState, TopicStats, coordinator_service_client::CoordinatorServiceClient,
};
use joust_queue::sandbox::RedisServer;
use joust_rpc::{Caller, sized::coordinator_client};

/// Nothing that is waited for takes as long.
pub const LIMIT: Duration = Duration::from_secs(150);
/// Pause between two looks at other processes.
const LOOK: Duration = Duration::from_millis(20);

/// How many workers of each role `joust up` starts.
#[derive(Clone, Copy)]
pub struct Size {
    pub rollouts: u32,
    pub judges: u32,
    pub learners: u32,
}

/// One of each.
pub const ONE: Size = Size { rollouts: 1, judges: 1, learners: 1 };

/// A cluster that `joust up` keeps; it ends with this.
pub struct Cluster {
    pub folder: PathBuf,
    up: Option<Child>,
    parts: Vec<Child>,
}

impl Cluster {
    /// Starts a cluster in `folder` whose runs may read below `root`; `None` where no redis-server is installed.
    pub fn start(folder: &Path, root: &Path, size: Size) -> Option<Self> {
        if !RedisServer::is_there_for("a cluster") {
            return None;
        }
        fs::create_dir_all(folder).expect("a folder");
        let told = fs::File::create(folder.join("up.txt")).expect("a file");
        let mut up = up(folder, root, size);
        let mut up = up.stdout(told.try_clone().expect("a handle")).stderr(told).spawn().expect("joust up starts");
        let deadline = Instant::now() + LIMIT;
        loop {
            let told = fs::read_to_string(folder.join("up.txt")).unwrap_or_default();
            if told.contains("cluster ready") {
                return Some(Self { folder: folder.to_owned(), up: Some(up), parts: Vec::new() });
            }
            let ended = up.try_wait().expect("it can be asked");
            assert!(ended.is_none() && Instant::now() < deadline, "no cluster: {ended:?}\n{told}");
            std::thread::sleep(LOOK); // polls a file of another process
        }
    }

    /// Makes the files of a cluster and starts its Redis alone; the parts are started one by one.
    pub fn start_redis(folder: &Path, root: &Path) -> Option<Self> {
        let size = Size { rollouts: 0, judges: 0, learners: 0 };
        let whole = Self::start(folder, root, size)?;
        let address = fs::read(folder.join("cluster.json")).expect("the cluster's file");
        drop(whole);
        fs::write(folder.join("cluster.json"), address).expect("written");
        let mut redis = Command::new("redis-server");
        let redis = redis.arg(folder.join("redis/redis.conf")).stdout(Stdio::null()).spawn();
        Some(Self { folder: folder.to_owned(), up: None, parts: vec![redis.expect("redis-server starts")] })
    }

    /// Starts a program of joust's with other settings than the deployment file's.
    pub fn start_part(&mut self, (role, name): (&str, &str), settings: &[String]) {
        let program = Path::new(env!("CARGO_BIN_EXE_joust")).with_file_name(format!("joust-{role}"));
        let log = fs::File::create(self.folder.join(format!("log/{name}.log"))).expect("a log");
        let mut command = Command::new(program);
        command.arg("--deployment").arg(self.folder.join("joust.toml"));
        if role != "coordinator" {
            command.args(["--name", name]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        let child = command.stdout(log.try_clone().expect("a handle")).stderr(log).spawn();
        self.parts.push(child.expect("a part starts"));
    }

    /// Runs the joust command on this cluster; returns what it printed.
    pub fn joust(&self, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_joust"))
            .args(args)
            .env("JOUST_CLUSTER", &self.folder)
            .output()
            .expect("joust starts");
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "joust {args:?}: {error}\n{}", self.logs());
        out.into_owned()
    }

    /// Runs the joust command on this cluster, which refuses it; returns what it said.
    pub fn refused(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_joust"));
        let output = command.args(args).env("JOUST_CLUSTER", &self.folder).output().expect("joust starts");
        assert_eq!(output.status.code(), Some(2), "joust {args:?} is refused\n{}", self.logs());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns the processes of the cluster's parts by name.
    pub fn processes(&self) -> BTreeMap<String, u32> {
        let text = fs::read(self.folder.join("processes.json")).expect("the processes");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Returns the folder of a run.
    pub fn run_folder(&self, run: &str) -> PathBuf {
        self.folder.join("runs").join(run)
    }

    /// Returns the last lines of all logs.
    pub fn logs(&self) -> String {
        let mut told = String::new();
        for entry in fs::read_dir(self.folder.join("log")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(12)..].join("\n");
            told += &format!("--- {}\n{last}\n", entry.file_name().display());
        }
        told
    }

    /// Returns the coordinator's URL.
    pub fn address(&self) -> String {
        Address::read(&self.folder.join("cluster.json")).expect("the cluster's file").coordinator
    }

    /// Sets up calls to the coordinator.
    pub fn client(&self) -> CoordinatorServiceClient<Caller> {
        coordinator_client(self.caller(&self.address()))
    }

    /// Sets up calls to an address, with an administrator's rights and the certificate of a worker.
    pub fn caller(&self, address: &str) -> Caller {
        let cluster = Address::read(&self.folder.join("cluster.json")).expect("the cluster's file");
        let certificate = |name: &str| self.folder.join("certs").join(name);
        let identity = Some((certificate("client.pem"), certificate("client.key")));
        let cluster = Address { coordinator: address.into(), identity, ..cluster };
        Caller::new(cluster.client().expect("an address")).expect("a caller")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for part in self.parts.iter_mut().rev() {
            let _ = part.kill();
            let _ = part.wait();
        }
        let Some(up) = &mut self.up else { return };
        signal("TERM", up.id());
        let deadline = Instant::now() + LIMIT;
        while matches!(up.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK); // polls a process
        }
        if matches!(up.try_wait(), Ok(None)) {
            let _ = up.kill();
            let text = fs::read(self.folder.join("processes.json")).unwrap_or_default();
            let left: BTreeMap<String, u32> = serde_json::from_slice(&text).unwrap_or_default();
            left.into_values().for_each(|pid| signal("KILL", pid));
        }
    }
}

/// Sets up `joust up`.
fn up(folder: &Path, root: &Path, size: Size) -> Command {
    let mut up = Command::new(env!("CARGO_BIN_EXE_joust"));
    // Tests may call as often as they want; that tokens may not is tested in crates/rpc.
    up.env("JOUST_DEPLOYMENT__LIMITS__CALLS_PER_S", "0");
    up.env("JOUST_LOG", "warn").args(["up", "--threads", "1", "--folder"]).arg(folder).arg("--root").arg(root);
    for (flag, count) in [("--rollouts", size.rollouts), ("--judges", size.judges), ("--learners", size.learners)] {
        up.args([flag, &count.to_string()]);
    }
    up
}

/// Sends a signal to a process, which may be gone.
pub fn signal(name: &str, pid: u32) {
    let kill = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
    kill.expect("kill runs");
}

/// What the coordinator says of a run; `None` while it does not answer.
pub async fn run_now(client: &mut CoordinatorServiceClient<Caller>, run: &str) -> Option<wire::Run> {
    let answer = client.get_run(wire::GetRunRequest { run_id: run.into() }).await.ok()?;
    answer.into_inner().run
}

/// Waits for a condition that an answer of the coordinator shows.
pub async fn wait_for<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        tokio::time::sleep(LOOK).await; // polls other processes
    }
}

/// Waits until a run has ended; it must have ended well.
pub async fn wait_until_done(cluster: &Cluster, run: &str, limit: Duration) {
    let mut client = cluster.client();
    let ended = wait_for("the end of the run", limit, async || {
        let now = run_now(&mut client, run).await?;
        [RunState::Done, RunState::Failed].contains(&now.state()).then_some(now)
    });
    let ended = ended.await;
    assert_eq!(
        (ended.state(), ended.steps_done),
        (RunState::Done, ended.steps),
        "{}\n{}",
        ended.reason,
        cluster.logs()
    );
}

/// Returns the accounts of a run's topics.
pub async fn accounts(cluster: &Cluster, run: &str) -> Vec<TopicStats> {
    let request = wire::GetQueueStatsRequest { run_id: run.into() };
    let answer = cluster.client().get_queue_stats(request).await.expect("the accounts");
    answer.into_inner().topics
}
