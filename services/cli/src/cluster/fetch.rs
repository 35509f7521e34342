//! Following a learner's models: the first with configuration and tokenizer, then each that is published, whole or not at all.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use joust_config::{Resolved, run::Policy};
use joust_core::{ModelRef, ModelSet, RunId};
use joust_data::Tokenizer;
use joust_engine::{ModelStore, Published, Snapshot};
use joust_model::{Adapter, Weights};
use joust_proto::{
    Reason,
    learner::v1::{self as wire, fetch_weights_response::Kind, learner_service_client::LearnerServiceClient},
};
use joust_rpc::{Caller, sized::learner_client};
use tch::Tensor;

use super::Worker;
use crate::{device, model};

/// A stream that says nothing for so long is taken for one that is cut; the learner speaks every 10 seconds.
const SILENCE: Duration = Duration::from_secs(25);
/// Pause before a learner that opens the run is asked again.
const SOON: Duration = Duration::from_millis(100);
/// Times that a cut transfer is gone on with.
const TRIES: u32 = 5;

/// What a run began with.
pub(super) struct First {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) bytes: u64,
    snapshot: Arc<Snapshot>,
}

/// The models of one run, as its learner publishes them.
pub(super) struct Follower {
    run: RunId,
    client: LearnerServiceClient<Caller>,
    address: String,
    folder: PathBuf,
    first: Arc<First>,
    store: ModelStore,
}

impl Follower {
    /// Fetches what the run began with from its learner, then what is published now.
    ///
    /// # Errors
    /// A learner that cannot be reached, or a model that cannot be opened.
    pub(super) async fn open(worker: &Worker, resolved: &Resolved, address: &str) -> anyhow::Result<Self> {
        let (run, mut client) = (resolved.run.name.clone(), learner_client(worker.caller(address)?));
        let folder = worker.cache().join(run.as_str());
        let target = folder.join("initial");
        let found = fetch(&mut client, (&run, wire::ModelPart::Initial, None), &target).await?;
        let policy = Policy { model: target, ..resolved.run.policy.clone() };
        let (seed, hash) = (resolved.run.seed, found.model.hash.clone());
        let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<First> {
            let model = model::policy(&policy, seed)?;
            Ok(First { tokenizer: model.tokenizer.clone(), bytes: found.bytes, snapshot: model.snapshot(hash)? })
        });
        let first = Arc::new(opened.await.context("opening the model panicked")??);
        let initial = first.snapshot.clone();
        let set = ModelSet { policy: initial.id.clone(), reference: initial.id.clone(), ema: None, past: Vec::new() };
        let (ema, past) = (Some(initial.clone()), Some(initial.clone()));
        let store = ModelStore::new(Published { set, policy: initial.clone(), reference: initial, ema, past });
        Ok(Self { run, client, address: address.to_owned(), folder, first, store })
    }

    /// Returns what the run began with.
    pub(super) fn model(&self) -> &Arc<First> {
        &self.first
    }

    /// Returns where the models are published for samplers.
    pub(super) fn models(&self) -> ModelStore {
        self.store.clone()
    }

    /// Follows another learner, if it is another.
    pub(super) fn move_to(&mut self, worker: &Worker, address: &str) -> anyhow::Result<()> {
        if !address.is_empty() && address != self.address {
            self.client = learner_client(worker.caller(address)?);
            address.clone_into(&mut self.address);
        }
        Ok(())
    }

    /// Publishes each model set of the learner, until its stream ends.
    ///
    /// # Errors
    /// A learner that is gone, or weights that cannot be used.
    pub(super) async fn follow(&mut self) -> anyhow::Result<()> {
        let request = wire::WatchModelsRequest { run_id: self.run.to_string(), after_version: None };
        let mut sets = self.client.watch_models(request).await.map_err(said)?.into_inner();
        loop {
            let next = tokio::time::timeout(SILENCE, sets.message()).await.context("the learner says nothing")?;
            let Some(message) = next.map_err(said)? else { return Ok(()) };
            let Some(models) = message.models else { continue };
            let set: ModelSet = models.try_into()?;
            self.adopt(set).await?;
        }
    }

    /// Makes a model set that of new sequences; one that is replaced meanwhile is passed over.
    async fn adopt(&mut self, set: ModelSet) -> anyhow::Result<()> {
        let now = self.store.current();
        if now.set == set {
            return Ok(());
        }
        let mut held: Vec<Arc<Snapshot>> = vec![self.first.snapshot.clone(), now.policy, now.reference];
        held.extend(now.ema.into_iter().chain(now.past));
        let Some(policy) = self.get(wire::ModelPart::Policy, &set.policy, &mut held).await? else { return Ok(()) };
        let mut others = Vec::new();
        for (part, id) in [(wire::ModelPart::Ema, set.ema.as_ref()), (wire::ModelPart::Past, set.past.first())] {
            let Some(id) = id else {
                others.push(None);
                continue;
            };
            let Some(found) = self.get(part, id, &mut held).await? else { return Ok(()) };
            others.push(Some(found));
        }
        // What the policy is held to is one of those, or what was held before.
        let Some(reference) = held.iter().find(|model| model.id == set.reference).cloned() else {
            bail!("the learner holds the policy to weights that it does not publish: {:?}", set.reference);
        };
        let (past, ema) = (others.pop().flatten(), others.pop().flatten());
        self.store.publish(Published { set, policy, reference, ema, past });
        Ok(())
    }

    /// Returns weights that are held, or fetches them; `None` where the learner has newer ones.
    async fn get(
        &mut self,
        part: wire::ModelPart,
        id: &ModelRef,
        held: &mut Vec<Arc<Snapshot>>,
    ) -> anyhow::Result<Option<Arc<Snapshot>>> {
        if let Some(found) = held.iter().find(|model| model.id == *id) {
            return Ok(Some(found.clone()));
        }
        let folder = self.folder.join(part.as_str_name());
        match fetch(&mut self.client, (&self.run, part, Some(id)), &folder).await {
            Ok(_) => {}
            Err(error) if error.downcast_ref::<Replaced>().is_some() => return Ok(None),
            Err(error) => return Err(error),
        }
        let (first, id) = (self.first.clone(), id.clone());
        let opened =
            tokio::task::spawn_blocking(move || frozen(&first.snapshot, &folder.join("model.safetensors"), id));
        let snapshot = opened.await.context("opening the weights panicked")??;
        held.push(snapshot.clone());
        Ok(Some(snapshot))
    }
}

/// Makes a snapshot of fetched weights; of an adapter, on the base that all snapshots share.
fn frozen(first: &Snapshot, path: &Path, id: ModelRef) -> anyhow::Result<Arc<Snapshot>> {
    let tensors = Tensor::read_safetensors(path).with_context(|| format!("failed to read {}", path.display()))?;
    let weights = Weights(tensors.into_iter().collect()).to_device(device::torch());
    Ok(Arc::new(match first.lora() {
        Some(lora) => first.with_adapter(&Adapter { config: lora.clone(), weights }, id)?,
        None => Snapshot::owned(first.config(), &weights, id)?,
    }))
}

/// Newer weights have taken the place of those that were asked for.
#[derive(Debug, thiserror::Error)]
#[error("the learner has newer weights")]
struct Replaced;

/// The learner is there, and is still opening the run.
#[derive(Debug, thiserror::Error)]
#[error("the learner does not serve the run yet")]
pub(super) struct NotYet;

/// What was fetched.
struct Fetched {
    model: ModelRef,
    bytes: u64,
}

fn said(status: tonic::Status) -> anyhow::Error {
    match Reason::of(&status) {
        Some(Reason::UnknownModel) => Replaced.into(),
        Some(Reason::UnknownRun) => NotYet.into(),
        _ => anyhow::anyhow!("the learner answers {:?}: {}", status.code(), status.message()),
    }
}

/// Fetches the files of weights into a folder, which appears whole or not at all; a cut transfer goes on where it was.
async fn fetch(
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
