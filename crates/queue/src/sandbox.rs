//! A Redis of one's own, on a free port and in a folder, for tests and for a cluster on one machine.

use std::{
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(10);

/// Keeps a server for as long as somebody holds the other end of its standard input, so that it never outlives who started it.
const KEEP: &str = r#"redis-server "$@" </dev/null & read -r _; kill -KILL $! 2>/dev/null; wait"#;

/// A running redis-server; it is killed when this is dropped, or its process ends.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
}

impl RedisServer {
    /// Returns whether redis-server can be started here.
    pub fn is_installed() -> bool {
        Command::new("redis-server").arg("--version").output().is_ok()
    }

    /// As [`Self::is_installed`], for a test: where it is not, the test is said to be skipped, past what test harnesses capture.
    ///
    /// # Panics
    /// With `JOUST_NO_SKIPS` set, where it is not installed.
    pub fn is_there_for(test: &str) -> bool {
        let there = Self::is_installed();
        assert!(
            there || std::env::var_os("JOUST_NO_SKIPS").is_none(),
            "redis-server is not installed (apt-get install redis-server)"
        );
        if !there {
            // A closed standard error is no reason to fail.
            let _ = writeln!(io::stderr(), "redis: 1 skipped: {test} (redis-server is not installed)");
        }
        there
    }

    /// Starts a server that persists into a folder, with more options as on its command line, and waits until it listens.
    ///
    /// # Errors
    /// A program that is missing, or does not listen in time.
    pub fn start(folder: &Path, options: &[&str]) -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let child = spawn(folder, port, &options)?;
        let server = Self { child, folder: folder.to_owned(), port, options };
        server.wait()?;
        Ok(server)
    }

    /// Returns the port, also of a server that was killed.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns where it is, without TLS.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would, with SIGKILL.
    ///
    /// # Errors
    /// A process that cannot be waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        self.child.wait().map(drop)
    }

    /// Starts it again, with what it has on disk.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.child = spawn(&self.folder, self.port, &self.options)?;
        self.wait()
    }

    fn wait(&self) -> io::Result<()> {
        let deadline = Instant::now() + START;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if Instant::now() >= deadline {
                let seconds = START.as_secs();
                return Err(io::Error::other(format!(
                    "redis-server on port {} listens not after {seconds} s",
                    self.port
                )));
            }
            std::thread::sleep(Duration::from_millis(1)); // between two tries
        }
        Ok(())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

fn spawn(folder: &Path, port: u16, options: &[String]) -> io::Result<Child> {
    let has = |name: &str| options.iter().any(|option| option == name);
    let mut command = Command::new("sh");
    command.args(["-c", KEEP, "redis-server"]);
    if !has("--tls-port") {
        command.args(["--port", &port.to_string()]);
    } else {
        command.args(["--port", "0", "--tls-port", &port.to_string()]);
    }
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
    command.arg("--dir").arg(folder).args(options.iter().filter(|option| *option != "--tls-port"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
