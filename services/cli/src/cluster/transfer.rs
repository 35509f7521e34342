//! Fetching the files of a model from its learner: in pieces, checked as a whole, from where a cut transfer was.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
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

/// Fetches the files of weights into a folder, which appears whole or not at all; a cut transfer goes on where it was. Without a model
/// reference the newest of the part are meant.
///
/// # Errors
/// A learner that is gone, has newer weights or sends others than it says, or a disk that takes no more.
pub async fn fetch(
    client: &mut LearnerServiceClient<Caller>,
    what: (&RunId, wire::ModelPart, Option<&ModelRef>),
    folder: &Path,
) -> anyhow::Result<Fetched> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let staging = folder.with_file_name(format!(".{name}"));
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("failed to remove {}", staging.display()))?;
    }
    fs::create_dir_all(&staging).with_context(|| format!("failed to create {}", staging.display()))?;
    let mut transfer =
        Transfer { folder: staging.clone(), header: None, done: 0, file: None, hasher: blake3::Hasher::new() };
    let mut tries = 0;
    loop {
        match transfer.go_on(client, what).await {
            Ok(()) => break,
            Err(error) if error.downcast_ref::<Replaced>().is_some() => return Err(error),
            // One that serves the run no more does not say which weights it had: whoever asked for them asks the coordinator.
            Err(error) if error.downcast_ref::<NotYet>().is_some() && what.2.is_some() => return Err(error),
            Err(error) if error.downcast_ref::<NotYet>().is_some() => {
                tracing::debug!(run = %what.0, "the learner does not serve the run yet");
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

/// Files that arrive end to end.
struct Transfer {
    folder: PathBuf,
    header: Option<wire::WeightsHeader>,
    /// Bytes that arrived.
    done: u64,
    file: Option<File>,
    hasher: blake3::Hasher,
}

impl Transfer {
    async fn go_on(
        &mut self,
        client: &mut LearnerServiceClient<Caller>,
        (run, part, model): (&RunId, wire::ModelPart, Option<&ModelRef>),
    ) -> anyhow::Result<()> {
        let request = wire::FetchWeightsRequest {
            run_id: run.to_string(),
            part: part.into(),
            model: model.cloned().map(Into::into),
            offset_bytes: self.done,
        };
        let mut pieces = client.fetch_weights(request).await.map_err(said)?.into_inner();
        loop {
            let next = tokio::time::timeout(SILENCE, pieces.message()).await.context("the learner says nothing")?;
            match next.map_err(said)?.and_then(|piece| piece.kind) {
                Some(Kind::Header(header)) => self.begin(header)?,
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
            // Also those without a byte are there.
            File::create(self.folder.join(&file.name)).with_context(|| format!("failed to write {}", file.name))?;
        }
        self.header = Some(header);
        Ok(())
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
