//! The process to be killed: this test binary, started again to run one of its ignored tests.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

const FILE: &str = "JOUST_QUEUE_TEST_FILE";
/// Begins each line with which a child acknowledges what it did.
const MARK: &str = "#done ";
/// Longer than any child takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the file that the parent named.
pub fn file() -> PathBuf {
    env::var_os(FILE).expect("the parent names the file").into()
}

/// Returns a number that the parent set, 0 where it set none.
pub fn number(name: &str) -> u64 {
    env::var(name).map_or(0, |text| text.parse().expect("the parent sets numbers"))
}

/// Tells the parent what was done.
pub fn acknowledge(what: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{MARK}{what}").and_then(|()| out.flush()).expect("the parent listens");
}

/// Waits until the parent says to go on.
pub fn wait_for_parent() {
    io::stdin().lock().read_line(&mut String::new()).expect("the parent speaks");
}

/// A running child and what it acknowledged.
pub struct Victim {
    process: Child,
    acknowledged: Receiver<String>,
}

impl Victim {
    /// Starts the ignored test of that name on a file.
    pub fn start(test: &str, file: &Path, settings: &[(&str, String)]) -> Self {
        let command = Command::new(env::current_exe().expect("this test"));
        Self::spawn(command, test, file, settings)
    }

    /// Starts the test where no file may grow beyond so many KiB, as on a full disk.
    pub fn start_within(kib: u64, test: &str, file: &Path) -> Self {
        let mut command = Command::new("bash");
        // Without the trap the signal would end the child before it sees the failed write.
        let script = format!(r#"trap "" XFSZ; ulimit -f {kib}; exec "$0" "$@""#);
        command.arg("-c").arg(script).arg(env::current_exe().expect("this test"));
        Self::spawn(command, test, file, &[])
    }

    fn spawn(mut command: Command, test: &str, file: &Path, settings: &[(&str, String)]) -> Self {
        let mut process = command
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .env(FILE, file)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let out = BufReader::new(process.stdout.take().expect("it is piped"));
        let (send, acknowledged) = channel();
        thread::spawn(move || listen(out, |what| send.send(what).is_ok()));
        Self { process, acknowledged }
    }

    /// Returns the next thing that the child did; `None` when it ends.
    pub fn next(&self) -> Option<String> {
        let next = self.acknowledged.recv_timeout(PATIENCE);
        assert!(!matches!(next, Err(RecvTimeoutError::Timeout)), "the child hangs");
        next.ok()
    }

    /// Lets a waiting child go on; does nothing to one that has ended.
    pub fn go_on(&mut self) {
        let _ = self.process.stdin.as_mut().expect("it is piped").write_all(b"\n");
    }

    /// Returns what the child does until a moment, however far it has come by then.
    pub fn until(&self, moment: Instant) -> Vec<String> {
        let left = || moment.saturating_duration_since(Instant::now());
        std::iter::from_fn(|| self.acknowledged.recv_timeout(left()).ok()).collect()
    }

    /// Sends SIGKILL unless the child has ended; returns what it had done beyond what was seen, and how it ended.
    pub fn kill(mut self) -> (Vec<String>, ExitStatus) {
        self.process.kill().expect("a child that was not waited for");
        let status = self.process.wait().expect("an end");
        (self.acknowledged.iter().collect(), status)
    }

    /// Waits for the child to end by itself.
    pub fn end(mut self) -> (Vec<String>, ExitStatus) {
        let done = std::iter::from_fn(|| self.next()).collect();
        (done, self.process.wait().expect("an end"))
    }
}

fn listen(mut out: BufReader<ChildStdout>, mut tell: impl FnMut(String) -> bool) {
    let mut line = String::new();
    // A line without its end was cut by the kill: what it says was not acknowledged.
    while out.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
        let what = line.trim_end().strip_prefix(MARK).map(str::to_owned);
        if what.is_some_and(|what| !tell(what)) {
            return;
        }
        line.clear();
    }
}
