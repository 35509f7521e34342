//! What a session publishes: copied weights, for readers elsewhere as files, for those who sample in this process as snapshots.

use std::sync::Arc;

use joust_core::{ModelRef, ModelSet};
use joust_engine::{Published, Snapshot};
use joust_model::{Adapter, Weights};

use crate::{Error, Reference, Result, outlet::Part, rank::Kept, session::Session};

/// Copied weights on their way out.
struct Out {
    id: ModelRef,
    weights: Weights,
}

impl Session<'_> {
    /// Publishes the policy and what the players need; at the end of an iteration the reference follows, where the run says so.
    pub(crate) async fn publish(&mut self, resumed: bool) -> Result<()> {
        let policy = self.put_out(Part::Policy, 0, Kept::Policy).await?.ok_or_else(no_policy)?;
        self.state.policy = policy.id.clone();
        self.learners.publish(resumed).await?;
        let ema = self.put_out(Part::Average, 0, Kept::Average).await?;
        let past = self.put_out(Part::Past, 1, Kept::Past).await?;
        let id = |model: &Option<Out>| model.as_ref().map(|model| model.id.clone());
        let reference = match self.config.reference {
            Reference::Initial | Reference::None => self.around.initial.id.clone(),
            Reference::Previous => policy.id.clone(),
            Reference::Average => id(&ema).unwrap_or_else(|| policy.id.clone()),
        };
        let (policy_id, past_ids) = (policy.id.clone(), id(&past).into_iter().collect());
        self.set = ModelSet { policy: policy_id, reference, ema: id(&ema), past: past_ids };
        match &self.around.outlet {
            // Who samples makes snapshots of what lies there.
            Some(outlet) => outlet.announce(self.set.clone()),
            None => self.publish_here(policy, [ema, past]).await?,
        }
        Ok(())
    }

    /// Publishes models for those who sample in this process.
    async fn publish_here(&mut self, policy: Out, others: [Option<Out>; 2]) -> Result<()> {
        let initial = &self.around.initial;
        let policy = frozen(initial.clone(), policy).await?;
        let (mut beside, set) = (Vec::new(), self.set.clone());
        for model in others {
            beside.push(match model {
                Some(model) => Some(frozen(initial.clone(), model).await?),
                None => None,
            });
        }
        let known = beside.iter().flatten().chain([initial]);
        let reference = known.into_iter().find(|model| model.id == set.reference).unwrap_or(&policy).clone();
        let (past, ema) = (beside.pop().flatten(), beside.pop().flatten());
        self.policy = Some(policy.clone());
        self.around.models.publish(Published { set, policy, reference, ema, past });
        Ok(())
    }

    /// Copies weights that the run keeps, `lag` versions behind its policy, and puts them where other processes fetch them, if there are any.
    async fn put_out(&mut self, part: Part, lag: u64, which: Kept) -> Result<Option<Out>> {
        let policy = self.model_ref();
        let id = match part {
            Part::Policy => policy,
            _ => {
                let hash = blake3::hash(format!("{} {}", part.name(), policy.hash).as_bytes()).to_hex().to_string();
                ModelRef { hash, version: policy.version.saturating_sub(lag), ..policy }
            }
        };
        let Some(weights) = self.learners.weights(which, false).await? else { return Ok(None) };
        let Some(outlet) = self.around.outlet.clone() else { return Ok(Some(Out { id, weights })) };
        let put = move || outlet.put(part, &id, &weights).map(|()| Out { id, weights });
        tokio::task::spawn_blocking(put).await.map_err(|error| Error::Worker(error.to_string()))?.map(Some)
    }

    /// Names the policy as it is now.
    fn model_ref(&self) -> ModelRef {
        let version = self.config.version(self.state.step);
        ModelRef { generation: self.fence.0, version, hash: self.state.ledger.chain.clone() }
    }

    /// Copies the policy as it is now.
    pub(crate) async fn snapshot(&mut self) -> Result<Arc<Snapshot>> {
        let id = self.model_ref();
        let weights = self.learners.weights(Kept::Policy, false).await?.ok_or_else(no_policy)?;
        frozen(self.around.initial.clone(), Out { id, weights }).await
    }
}

/// Makes a snapshot of weights that are ours alone; of an adapter, on the base that all snapshots share.
async fn frozen(initial: Arc<Snapshot>, Out { id, weights }: Out) -> Result<Arc<Snapshot>> {
    let freeze = move || match initial.lora() {
        Some(lora) => initial.with_adapter(&Adapter { config: lora.clone(), weights }, id),
        None => Snapshot::owned(initial.config(), &weights, id),
    };
    let frozen = tokio::task::spawn_blocking(freeze).await.map_err(|error| Error::Worker(error.to_string()))?;
    Ok(Arc::new(frozen?))
}

pub(crate) fn no_policy() -> Error {
    Error::Worker("it has no policy".into())
}
