//! Ranks as processes: started together, told by pipes, ended together.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use joust_torch::Store;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command as Process},
};

use crate::{
    Error, Result,
    rank::{Command, Rank, Reply},
    worker::explained,
};

/// How long the other ranks may take to say that they lost one too, when one has said so.
const GRACE: Duration = Duration::from_secs(5);
/// Largest message, so that a broken length is not taken for one.
const LARGEST: u32 = 1 << 30;

/// How ranks are started.
#[derive(Clone)]
pub struct RankProcesses {
    /// Ranks of the group.
    pub size: usize,
    /// Fewest ranks that go on.
    pub least: usize,
    /// Longest wait for a rank to load its model and join.
    pub timeout: Duration,
    /// How often lost ranks are started again, in this process's life.
    pub restarts: u64,
    /// File for weights on their way from the first rank.
    pub scratch: PathBuf,
    /// Where this process keeps its copies of the weights.
    pub device: tch::Device,
    /// Builds the command that starts a rank, which calls [`serve_rank`].
    pub command: Arc<dyn Fn(&RankPlace) -> Process + Send + Sync>,
}

/// Where a rank stands.
#[derive(Debug, Clone)]
pub struct RankPlace {
    /// Which it is, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Times that the group was started before.
    pub incarnation: u64,
    /// Where the ranks meet.
    pub store: SocketAddr,
}

/// The processes of a group. They end with it.
pub(crate) struct Group {
    ranks: Vec<Connection>,
    /// Lives here, so that it does not die with a rank.
    _store: Store,
}

struct Connection {
    rank: usize,
    process: Child,
    told: ChildStdin,
    tells: ChildStdout,
}

/// What a rank answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Reply(Reply),
    /// It cannot, and nobody else could.
    Failed(String),
    /// It lost another rank.
    Lost(String),
}

impl Group {
    /// Starts all ranks; each joins the others when it has loaded its model.
    pub(crate) fn start(processes: &RankProcesses, incarnation: u64) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Worker(format!("a rank cannot be started: {error}"));
        let store = Store::serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), processes.timeout)?;
        let mut ranks = Vec::with_capacity(processes.size);
        for rank in 0..processes.size {
            let place = RankPlace { rank, size: processes.size, incarnation, store: store.address() };
            let mut command = (processes.command)(&place);
            // A Ctrl-C is for the supervisor, which lets the step end.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
            let mut process = command.spawn().map_err(failed)?;
            let pipes = process.stdin.take().zip(process.stdout.take());
            let (told, tells) = pipes.ok_or_else(|| Error::Worker("a rank has no pipes".into()))?;
            ranks.push(Connection { rank, process, told, tells });
        }
        Ok(Self { ranks, _store: store })
    }

    pub(crate) fn size(&self) -> usize {
        self.ranks.len()
    }

    /// Tells each rank its command, waits for all answers, and returns that of the first rank.
    ///
    /// # Errors
    /// [`Error::RankLost`] if one ended or lost another; [`Error::Rank`] if one could not do it.
    pub(crate) async fn ask(&mut self, command: impl Fn(usize) -> Command) -> Result<Reply> {
        let mut asked: FuturesUnordered<_> = self
            .ranks
            .iter_mut()
            .map(|connection| {
                let rank = connection.rank;
                let bytes = rmp_serde::to_vec_named(&command(rank)).expect("commands hold only plain data");
                async move { (rank, connection.exchange(bytes).await) }
            })
            .collect();
        let (mut first, mut lost, mut failed) = (None, None, None);
        loop {
            // One that hangs does not answer; the others have lost it.
            let next = match lost.is_some() || failed.is_some() {
                true => tokio::time::timeout(GRACE, asked.next()).await.unwrap_or(None),
                false => asked.next().await,
            };
            let Some((rank, answer)) = next else { break };
            match answer {
                Some(Answer::Reply(reply)) if rank == 0 => first = Some(reply),
                Some(Answer::Reply(_)) => {}
                Some(Answer::Lost(reason)) => lost = lost.or(Some((rank, reason))),
                Some(Answer::Failed(message)) => failed = failed.or(Some((rank, message))),
                None => {
                    // The others cannot go on without it: whatever they wait for, nobody waits for them.
                    drop(asked);
                    let status = self.ranks[rank].process.wait().await;
                    let reason = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Err(Error::RankLost { rank, reason });
                }
            }
        }
        // What one could not do the others lose it over.
        match (failed, lost) {
            (Some((rank, message)), _) => Err(Error::Rank { rank, message }),
            (None, Some((rank, reason))) => Err(Error::RankLost { rank, reason }),
            (None, None) => first.ok_or_else(|| Error::Worker("there is no rank".into())),
        }
    }
}

impl Connection {
    /// Sends a command and waits for its answer; `None` if the process ended.
    async fn exchange(&mut self, bytes: Vec<u8>) -> Option<Answer> {
        // However the pipe broke, the supervisor asks the process itself why it ended.
        let length = u32::try_from(bytes.len()).ok()?.to_le_bytes();
        self.told.write_all(&length).await.ok()?;
        self.told.write_all(&bytes).await.ok()?;
        self.told.flush().await.ok()?;
        let length = self.tells.read_u32_le().await.ok().filter(|length| *length <= LARGEST)?;
        let mut bytes = vec![0; length as usize];
        self.tells.read_exact(&mut bytes).await.ok()?;
        rmp_serde::from_slice(&bytes).ok()
    }
}

/// Does what the supervisor tells over stdin, answers over stdout, and ends when the pipe does.
///
/// # Errors
/// [`Error::Worker`] if the pipes break in the middle of a message.
pub fn serve_rank(mut rank: Rank) -> Result<()> {
    let broken = |error: std::io::Error| Error::Worker(format!("the supervisor's pipe broke: {error}"));
    let (mut told, mut tells) = (std::io::stdin().lock(), std::io::stdout().lock());
    while let Some(command) = read::<Command>(&mut told)? {
        let done = catch_unwind(AssertUnwindSafe(|| rank.handle(command)));
        let panicked = done.as_ref().err().map(|panic| explained(&**panic));
        let answer = match done {
            Ok(Ok(reply)) => Answer::Reply(reply),
            Ok(Err(error)) if is_lost(&error) => Answer::Lost(error.to_string()),
            Ok(Err(error)) => Answer::Failed(error.to_string()),
            Err(panic) => Answer::Failed(explained(&*panic)),
        };
        let bytes = rmp_serde::to_vec_named(&answer).expect("answers hold only plain data");
        let length = u32::try_from(bytes.len()).map_err(|_| Error::Worker("the answer is too long".into()))?;
        tells.write_all(&length.to_le_bytes()).and_then(|()| tells.write_all(&bytes)).map_err(broken)?;
        tells.flush().map_err(broken)?;
        if let Some(message) = panicked {
            return Err(Error::Worker(message)); // ending, it breaks the connections that the others wait on
        }
    }
    Ok(())
}

/// Reads one message; `None` at the end.
fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>> {
    let broken = |error: String| Error::Worker(format!("the supervisor's pipe broke: {error}"));
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(broken(error.to_string())),
    }
    let mut bytes = vec![0; u32::from_le_bytes(length).min(LARGEST) as usize];
    from.read_exact(&mut bytes).map_err(|error| broken(error.to_string()))?;
    rmp_serde::from_slice(&bytes).map(Some).map_err(|error| broken(error.to_string()))
}

/// Returns whether another rank is at fault: it ended, hangs, or failed itself.
fn is_lost(error: &Error) -> bool {
    use joust_torch::Error as Border;
    matches!(error, Error::Train(joust_train::Error::Border(Border::PeerLost { .. } | Border::Timeout { .. })))
}
