//! Fetching the files of a model from its learner: in pieces, checked as a whole, from where a cut transfer was.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use joust_core::{ModelRef, RunId};
use joust_proto::{
    Reason,
    learner::v1::{self as wire, fetch_weights_response::Kind, learner_service_client::LearnerServiceClient},
};
use joust_rpc::Caller;

/// A stream that says nothing for so long is taken for one that is cut; the learner speaks every 10 seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(25);
/// Pause before a learner that opens the run is asked again.
const SOON: Duration = Duration::from_millis(100);
/// Times that a cut transfer is gone on with.
const TRIES: u32 = 5;

/// Newer weights have taken the place of those that were asked for.
#[derive(Debug, thiserror::Error)]
#[error("the learner has newer weights")]
pub(super) struct Replaced;

/// The learner is there, and is still opening the run.
#[derive(Debug, thiserror::Error)]
#[error("the learner does not serve the run yet")]
pub(super) struct NotYet;

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Run that it belongs to.
    pub run: &'a RunId,
    /// Which of its models.
    pub part: wire::ModelPart,
    /// The weights as a model set names them; `None` for the newest of the part.
    pub model: Option<&'a ModelRef>,
    /// Name of the judge, for the model of one.
    pub judge: &'a str,
}

/// What was fetched.
pub struct Fetched {
    /// Which model it is.
    pub model: ModelRef,
    /// Size of all files in bytes.
    pub bytes: u64,
}

pub(super) fn said(status: tonic::Status) -> anyhow::Error {
    match Reason::of(&status) {
        Some(Reason::UnknownModel) => Replaced.into(),
        Some(Reason::UnknownRun) => NotYet.into(),
        _ => anyhow::anyhow!("the learner answers {:?}: {}", status.code(), status.message()),
    }
}

/// Fetches the files of weights into a folder, which appears whole or not at all; a cut transfer goes on where it was. Files that the
/// learner has below `shared` are taken from there.
///
/// # Errors
/// A learner that is gone, has newer weights or sends others than it says, or a disk that takes no more.
pub async fn fetch(
    client: &mut LearnerServiceClient<Caller>,
    wanted: Wanted<'_>,
    (folder, shared): (&Path, Option<&Path>),
) -> anyhow::Result<Fetched> {
    let staged = Staging::beside(folder)?;
    let staging = staged.0.clone();
    let shared = shared.map(Path::to_owned);
    let hasher = blake3::Hasher::new();
    let mut transfer = Transfer { folder: staging.clone(), shared, header: None, done: 0, file: None, hasher };
    let mut tries = 0;
    loop {
        match transfer.go_on(client, wanted).await {
            Ok(()) => break,
            Err(error) if error.downcast_ref::<Replaced>().is_some() => return Err(error),
            // One that serves the run no more does not say which weights it had: whoever asked for them asks the coordinator.
            Err(error) if error.downcast_ref::<NotYet>().is_some() && wanted.model.is_some() => return Err(error),
            Err(error) if error.downcast_ref::<NotYet>().is_some() => {
                tracing::debug!(run = %wanted.run, "the learner does not serve the run yet");
                tokio::time::sleep(SOON).await;
            }
            Err(error) if tries + 1 < TRIES => {
                tries += 1;
                tracing::warn!(
                    bytes = transfer.done,
                    error = format!("{error:#}"),
                    "a transfer of weights was cut; going on"
                );
                tokio::time::sleep(Duration::from_millis(100) * tries).await;
            }
            Err(error) => return Err(error),
        }
    }
    let header = transfer.header.take().context("the learner sent no header")?;
    let found = transfer.hasher.finalize().to_hex().to_string();
    ensure!(
        found == header.blake3,
        "weights arrived damaged: their BLAKE3 is {found}, the learner says {}",
        header.blake3
    );
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::rename(&staging, folder).with_context(|| format!("failed to rename {}", staging.display()))?;
    let model = header.model.context("the learner names no model")?.try_into()?;
    Ok(Fetched { model, bytes: header.total_bytes })
}

/// A folder of one fetch, which nobody else writes into: one that was given up may still be at work.
struct Staging(PathBuf);

impl Staging {
    fn beside(folder: &Path) -> anyhow::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (own, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let parent = folder.parent().unwrap_or(Path::new("."));
        for entry in parent.read_dir().into_iter().flatten().flatten() {
            let found = entry.file_name().to_string_lossy().into_owned();
            if maker(&found, &name).is_some_and(|process| process != own) {
                // Of a process that was killed: the folder is this worker's alone.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = folder.with_file_name(format!(".{name}-{own}-{number}"));
        fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self(path))
    }
}

/// Returns the process that made a staging folder of this name for `name`, if it is one.
fn maker(found: &str, name: &str) -> Option<u32> {
    let (process, number) = found.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('-')?.split_once('-')?;
    number.parse::<u64>().ok().and(process.parse().ok())
}

impl Drop for Staging {
    fn drop(&mut self) {
        // It has its own name by now, or nobody wants it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Files that arrive end to end.
struct Transfer {
    folder: PathBuf,
    /// Below it the learner's files may be taken.
    shared: Option<PathBuf>,
    header: Option<wire::WeightsHeader>,
    /// Bytes that arrived.
    done: u64,
    file: Option<File>,
    hasher: blake3::Hasher,
}

impl Transfer {
    async fn go_on(&mut self, client: &mut LearnerServiceClient<Caller>, wanted: Wanted<'_>) -> anyhow::Result<()> {
        let request = wire::FetchWeightsRequest {
            run_id: wanted.run.to_string(),
            part: wanted.part.into(),
            model: wanted.model.cloned().map(Into::into),
            offset_bytes: self.done,
            judge: wanted.judge.to_owned(),
        };
        let mut pieces = client.fetch_weights(request).await.map_err(said)?.into_inner();
        loop {
            let next = tokio::time::timeout(SILENCE, pieces.message()).await.context("the learner says nothing")?;
            match next.map_err(said)?.and_then(|piece| piece.kind) {
                Some(Kind::Header(header)) => {
                    self.begin(header)?;
                    if self.done == 0 && self.take_shared().await? {
                        return Ok(());
                    }
                }
                Some(Kind::Chunk(chunk)) => self.take(&chunk)?,
                None => break,
            }
        }
        let total = self.header.as_ref().map_or(u64::MAX, |header| header.total_bytes);
        ensure!(self.done == total, "the transfer ended after {} of {total} bytes", self.done);
        Ok(())
    }

    fn begin(&mut self, header: wire::WeightsHeader) -> anyhow::Result<()> {
        if let Some(known) = &self.header {
            if known.blake3 != header.blake3 {
                return Err(Replaced.into());
            }
            return Ok(());
        }
        ensure!(
            !header.files.is_empty() && header.files.len() <= 1024,
            "the learner sends {} files",
            header.files.len()
        );
        for file in &header.files {
            let plain = !file.name.is_empty() && !file.name.contains(['/', '\\', '\0']) && !file.name.starts_with('.');
            ensure!(plain, "the learner sends a file named {:?}", file.name);
        }
        self.create(&header)?;
        self.header = Some(header);
        Ok(())
    }

    /// Makes the files anew; also those without a byte are there.
    fn create(&self, header: &wire::WeightsHeader) -> anyhow::Result<()> {
        for file in &header.files {
            let path = self.folder.join(&file.name);
            // One that has the learner's file under it must never be written into.
            let removed = fs::remove_file(&path);
            removed.or_else(absent).with_context(|| format!("failed to remove {}", file.name))?;
            File::create_new(&path).with_context(|| format!("failed to write {}", file.name))?;
        }
        Ok(())
    }

    /// Takes the files from where the learner has them, if that is seen from here; else the call goes on.
    async fn take_shared(&mut self) -> anyhow::Result<bool> {
        let (Some(shared), Some(header)) = (self.shared.take(), self.header.clone()) else { return Ok(false) };
        let (folder, wanted) = (self.folder.clone(), header.clone());
        let taken = tokio::task::spawn_blocking(move || take_shared(&wanted, &shared, &folder)).await;
        match taken.context("taking shared weights panicked")? {
            Ok(hasher) => {
                self.done = hasher.count();
                self.hasher = hasher;
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "weights are not shared; they are fetched");
                self.create(&header)?;
                Ok(false)
            }
        }
    }

    fn take(&mut self, chunk: &wire::WeightsChunk) -> anyhow::Result<()> {
        let header = self.header.as_ref().context("the learner sent bytes before their header")?;
        ensure!(chunk.offset_bytes == self.done, "bytes at {} arrived, expected {}", chunk.offset_bytes, self.done);
        self.hasher.update(&chunk.data);
        let mut data = &chunk.data[..];
        while !data.is_empty() {
            let mut begins = 0;
            let found = header.files.iter().find(|file| {
                begins += file.size_bytes;
                begins > self.done
            });
            let file = found.context("more bytes arrived than the header says")?;
            let left = begins - self.done;
            let open = || File::options().append(true).open(self.folder.join(&file.name));
            let mut into = self.file.take().map_or_else(open, Ok).context("failed to open a file")?;
            let count = data.len().min(left as usize);
            into.write_all(&data[..count]).with_context(|| format!("failed to write {}", file.name))?;
            self.done += count as u64;
            self.file = (count < left as usize).then_some(into);
            data = &data[count..];
        }
        Ok(())
    }
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Takes a learner's files from below `shared` into a folder, by a second name where the disk is one, else as copies; returns their hash.
fn take_shared(header: &wire::WeightsHeader, shared: &Path, folder: &Path) -> anyhow::Result<blake3::Hasher> {
    let own = Path::new(&header.folder).canonicalize()?;
    ensure!(own.starts_with(shared), "{} is not below {}", own.display(), shared.display());
    let mut hasher = blake3::Hasher::new();
    for file in &header.files {
        let (from, to) = (own.join(&file.name), folder.join(&file.name));
        fs::remove_file(&to)?;
        if fs::hard_link(&from, &to).is_err() {
            std::io::copy(&mut File::open(&from)?, &mut File::create_new(&to)?)?;
        }
        hasher.update_mmap_rayon(&to)?;
    }
    let found = hasher.finalize().to_hex().to_string();
    ensure!(found == header.blake3, "the files of {} are others than the learner says", own.display());
    Ok(hasher)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two files, and what its learner says of them.
    fn offered(folder: &Path) -> wire::WeightsHeader {
        fs::create_dir_all(folder).expect("made");
        let all: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", b"weights")];
        let mut hasher = blake3::Hasher::new();
        let files = all.map(|(name, bytes)| {
            fs::write(folder.join(name), bytes).expect("written");
            hasher.update(bytes);
            wire::WeightsFile { name: name.into(), size_bytes: bytes.len() as u64 }
        });
        wire::WeightsHeader {
            total_bytes: 9,
            blake3: hasher.finalize().to_hex().to_string(),
            files: files.to_vec(),
            model: None,
            folder: folder.display().to_string(),
        }
    }

    async fn taken(header: &wire::WeightsHeader, shared: &Path, into: &Path) -> Transfer {
        fs::create_dir_all(into).expect("made");
        let (folder, shared) = (into.to_owned(), Some(shared.to_owned()));
        let hasher = blake3::Hasher::new();
        let mut transfer = Transfer { folder, shared, header: None, done: 0, file: None, hasher };
        transfer.begin(header.clone()).expect("a header");
        transfer.take_shared().await.expect("no error");
        transfer
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let others = [".judge-a-b-1-0", ".judge-a-1", "judge-a-1-0", ".judge-ab-1-0"];
        for name in others.iter().chain(&[".judge-a-1-0"]) {
            fs::create_dir(at(name)).expect("made");
        }
        let first = Staging::beside(&at("judge-a")).expect("made");
        let second = Staging::beside(&at("judge-a")).expect("made");
        assert!(first.0.is_dir() && second.0.is_dir() && first.0 != second.0);
        assert!(others.iter().all(|name| at(name).is_dir()) && !at(".judge-a-1-0").exists());
        let (path, _) = (first.0.clone(), drop(first));
        assert!(!path.exists() && second.0.is_dir());
    }

    #[tokio::test]
    async fn shared_files_are_taken_whole_and_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let (runs, own) = (root.join("runs"), root.join("runs/r/.weights"));
        let header = offered(&own);
        let found = taken(&header, &runs, &root.join("a")).await;
        assert_eq!((found.done, found.hasher.finalize().to_hex().to_string()), (9, header.blake3.clone()));
        assert_eq!(fs::read(root.join("a/model.safetensors")).expect("there"), b"weights");
        // A folder elsewhere, or other bytes than are told: nothing is taken, and what is fetched then is not written into the learner's files.
        for (header, runs) in
            [(header.clone(), root.join("other")), (wire::WeightsHeader { blake3: "0".repeat(64), ..header }, runs)]
        {
            fs::create_dir_all(&runs).expect("made");
            let mut refused = taken(&header, &runs, &root.join("b")).await;
            assert_eq!(refused.done, 0);
            refused.take(&wire::WeightsChunk { offset_bytes: 0, data: b"{}another".to_vec().into() }).expect("taken");
            assert_eq!(fs::read(root.join("b/model.safetensors")).expect("there"), b"another");
            assert_eq!(fs::read(own.join("model.safetensors")).expect("there"), b"weights");
        }
    }
}
