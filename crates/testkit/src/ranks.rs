//! Ranks for tests: a test program starts itself again, once for each rank, and they meet in a store that the test serves.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use joust_torch::{Join, Store};

/// Longest wait of a rank for the others.
pub const TIMEOUT: Duration = Duration::from_secs(20);

const VARIABLE: &str = "JOUST_TEST_RANK";

/// What a process was started for.
#[derive(Debug, Clone)]
pub struct Rank {
    /// What it is to do.
    pub task: String,
    /// Which rank it is, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    address: SocketAddr,
}

impl Rank {
    /// Returns what this process was started for; `None` in the test itself.
    ///
    /// # Panics
    /// If the variable was set by hand.
    pub fn of_this_process() -> Option<Self> {
        let what = env::var(VARIABLE).ok()?;
        let parts: [&str; 4] = what.split('|').collect::<Vec<_>>().try_into().expect("task, rank, ranks and address");
        let [task, rank, size, address] = parts;
        let number = |text: &str| text.parse().expect("a number");
        let address = address.parse().expect("an address");
        Some(Self { task: task.to_owned(), rank: number(rank), size: number(size), address })
    }

    /// Connects to the store of the test.
    ///
    /// # Panics
    /// If the test is gone.
    pub fn store(&self) -> Arc<Store> {
        Arc::new(Store::connect(self.address, TIMEOUT).expect("the test serves a store"))
    }

    /// Returns how this rank joins the others.
    pub fn join(&self) -> Join {
        Join {
            rank: self.rank,
            size: self.size,
            name: "first".into(),
            identity: "run".into(),
            host: "127.0.0.1".into(),
            timeout: TIMEOUT,
        }
    }
}

/// Serves a store on a free port of this machine.
///
/// # Panics
/// If there is none.
pub fn serve() -> Store {
    Store::serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), TIMEOUT).expect("a free port")
}

/// Starts one rank in the test `a_rank` of this program, in whatever module, which must be marked `#[ignore]`.
///
/// # Panics
/// If the program cannot be started.
pub fn start(store: &Store, task: &str, rank: usize, size: usize) -> Child {
    command(store, task, rank, size).spawn().expect("the test starts itself")
}

fn command(store: &Store, task: &str, rank: usize, size: usize) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command
        .args(["a_rank", "--nocapture", "--ignored"])
        .env(VARIABLE, format!("{task}|{rank}|{size}|{}", store.address()))
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Tells the test something; what comes from all calls is joined by line breaks.
pub fn tell(text: impl std::fmt::Display) {
    println!("out:{text}");
}

/// Runs a task on `size` ranks and returns what each told.
///
/// # Panics
/// If one tells nothing.
pub fn run(task: &str, size: usize) -> Vec<String> {
    let store = serve();
    let ranks: Vec<Child> = (0..size).map(|rank| start(&store, task, rank, size)).collect();
    ranks.into_iter().map(told).collect()
}

/// As [`run`], with a failpoint on one rank, written as [`joust_core::failpoint`] reads it.
///
/// # Panics
/// If a rank tells nothing.
pub fn run_failing(task: &str, size: usize, failing: usize, failpoint: &str) -> Vec<String> {
    let store = serve();
    let begin = |rank: usize| {
        let mut command = command(&store, task, rank, size);
        if rank == failing {
            command.env("JOUST_FAILPOINT", failpoint);
        }
        command.spawn().expect("the test starts itself")
    };
    let ranks: Vec<Child> = (0..size).map(begin).collect();
    ranks.into_iter().map(told).collect()
}

/// Waits for a rank and returns what it told.
///
/// # Panics
/// If that is nothing.
pub fn told(rank: Child) -> String {
    let output = rank.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.split("out:").nth(1)).collect();
    assert!(!lines.is_empty(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    lines.join("\n")
}
