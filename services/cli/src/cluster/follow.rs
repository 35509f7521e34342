//! Following a learner's models: the first with configuration and tokenizer, then each that is published, whole or not at all.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use joust_config::{Resolved, run::Policy};
use joust_core::{ModelRef, ModelSet, RunId};
use joust_data::Tokenizer;
use joust_engine::{ModelStore, Published, Snapshot};
use joust_model::{Adapter, Weights};
use joust_proto::learner::v1::{self as wire, learner_service_client::LearnerServiceClient};
use joust_rpc::{Caller, sized::learner_client};
use tch::Tensor;

use super::{
    Worker,
    transfer::{Replaced, SILENCE, Wanted, fetch, said},
};
use crate::{device, model};

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
    /// Below it the learner's files are taken as they are.
    shared: Option<PathBuf>,
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
        let shared = worker.shared();
        let wanted = Wanted { run: &run, part: wire::ModelPart::Initial, model: None, judge: "" };
        let found = fetch(&mut client, wanted, (&target, shared.as_deref())).await?;
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
        Ok(Self { run, client, address: address.to_owned(), folder, shared, first, store })
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
        let wanted = Wanted { run: &self.run, part, model: Some(id), judge: "" };
        match fetch(&mut self.client, wanted, (&folder, self.shared.as_deref())).await {
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
