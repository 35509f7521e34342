//! Sums of gradients over ranks, sent while the backward pass still runs.

use std::{collections::BTreeMap, sync::Arc};

use joust_core::failpoint;
use joust_model::Weights;
use joust_torch::{Hook, Pending, ProcessGroup, Reduce, set_grad};
use parking_lot::Mutex;
use tch::{Kind, Tensor};

use crate::Result;

/// Gathers gradients in flat buckets, a layer or more each, from the last layer to the first, and sums each over the ranks as soon as the
/// backward pass has left it.
#[derive(Debug)]
pub(crate) struct Reducer {
    shared: Arc<Shared>,
    hook: Hook,
    /// Number of each matrix that the model reads, by key.
    ids: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct Shared {
    group: Arc<ProcessGroup>,
    /// Bucket of each matrix by number.
    buckets: Vec<usize>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whether the backward pass under way is the last of the step.
    armed: bool,
    /// The gradients of each bucket, float32 and flat; those of the masters are views of it.
    flats: Vec<Tensor>,
    /// Matrices of each bucket whose gradient is still to come.
    missing: Vec<usize>,
    /// The bucket that is sent next: all ranks send in this order.
    next: usize,
    pending: Vec<Pending>,
    failed: Option<joust_torch::Error>,
}

/// Returns where in the backward pass a matrix comes: the head first, then the layers from the last on, then the embedding.
fn place(key: &str) -> i64 {
    if let Some(rest) = key.strip_prefix("model.layers.") {
        let layer = rest.split('.').next().and_then(|layer| layer.parse::<i64>().ok());
        return -layer.unwrap_or_default();
    }
    if key.starts_with("model.embed") { i64::MAX } else { i64::MIN }
}

impl Reducer {
    /// Gives the masters of `matrices` (key, names of the masters) their gradients as views of buckets.
    ///
    /// A layer with fewer elements than `smallest` shares its bucket with the next.
    pub(crate) fn new(
        (group, smallest): (Arc<ProcessGroup>, i64),
        matrices: &[(String, Vec<String>)],
        weights: &Weights,
    ) -> Result<Self> {
        let mut order: Vec<&(String, Vec<String>)> = matrices.iter().collect();
        order.sort_by_key(|(key, _)| place(key));
        let size =
            |(_, parts): &(String, Vec<String>)| parts.iter().map(|part| weights.0[part].numel() as i64).sum::<i64>();
        let (mut sizes, mut missing, mut buckets, mut ids) = (vec![0], vec![0], Vec::new(), BTreeMap::new());
        let mut last = None;
        for matrix in &order {
            let here = place(&matrix.0);
            let (bucket, elements) = (sizes.len() - 1, sizes[sizes.len() - 1]);
            let bucket = if last.is_some_and(|last| last != here) && elements >= smallest {
                sizes.push(0);
                missing.push(0);
                bucket + 1
            } else {
                bucket
            };
            last = Some(here);
            sizes[bucket] += size(matrix);
            missing[bucket] += 1;
            ids.insert(matrix.0.clone(), buckets.len() as i64);
            buckets.push(bucket);
        }
        let device = weights.0.values().next().map_or(tch::Device::Cpu, Tensor::device);
        let flats: Vec<Tensor> = sizes.iter().map(|size| Tensor::zeros([*size], (Kind::Float, device))).collect();
        let mut filled = vec![0; sizes.len()];
        for ((_, parts), bucket) in order.iter().zip(&buckets) {
            for part in parts {
                let master = &weights.0[part];
                let elements = master.numel() as i64;
                let view = flats[*bucket].narrow(0, filled[*bucket], elements).view_as(master);
                filled[*bucket] += elements;
                set_grad(master, &view)?;
            }
        }
        let state = State { armed: false, flats, missing, next: 0, pending: Vec::new(), failed: None };
        let shared = Arc::new(Shared { group, buckets, state: Mutex::new(state) });
        let told = Arc::downgrade(&shared);
        let hook = Hook::new(move |id| {
            if let Some(shared) = told.upgrade() {
                shared.arrived(id as usize);
            }
        });
        Ok(Self { shared, hook, ids })
    }

    /// Returns what the copy of a matrix reports to.
    pub(crate) fn report(&self, key: &str) -> Option<(&Hook, i64)> {
        Some((&self.hook, *self.ids.get(key)?))
    }

    /// Announces the last backward pass of the step.
    pub(crate) fn arm(&self) {
        self.shared.state.lock().armed = true;
    }

    /// Sends what was not sent yet, and waits until every gradient is the sum over the ranks.
    pub(crate) fn finish(&self) -> Result<()> {
        let (pending, failed) = {
            let mut state = self.shared.state.lock();
            let all = state.flats.len();
            self.shared.send(&mut state, all);
            let buckets = &self.shared.buckets;
            state.missing = (0..all).map(|bucket| buckets.iter().filter(|b| **b == bucket).count()).collect();
            (state.armed, state.next) = (false, 0);
            (std::mem::take(&mut state.pending), state.failed.take())
        };
        for pending in pending {
            let _sum = pending.wait()?; // in place
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sets all gradients to 0.
    pub(crate) fn clear(&self) {
        let _no_grad = tch::no_grad_guard();
        self.shared.state.lock().flats.iter_mut().for_each(|flat| {
            let _ = flat.zero_();
        });
    }
}

impl Shared {
    /// Notes that the gradient of a matrix is there, and sends the buckets that are whole.
    fn arrived(&self, id: usize) {
        let mut state = self.state.lock();
        if !state.armed {
            return;
        }
        let bucket = self.buckets[id];
        state.missing[bucket] = state.missing[bucket].saturating_sub(1);
        let whole = state.missing[state.next..].iter().take_while(|missing| **missing == 0).count();
        let until = state.next + whole;
        self.send(&mut state, until);
    }

    /// Begins to sum the buckets from the next on.
    fn send(&self, state: &mut State, until: usize) {
        while state.next < until {
            match self.group.all_reduce(&state.flats[state.next], Reduce::Sum) {
                Ok(pending) => state.pending.push(pending),
                Err(error) => state.failed = Some(error),
            }
            failpoint::pass("rank_in_all_reduce");
            state.next += 1;
        }
    }
}
