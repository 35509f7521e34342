//! Sums of gradients over ranks, sent while the backward pass still runs, of which each rank keeps its own rows.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use joust_core::failpoint;
use joust_model::Weights;
use joust_torch::{Pending, ProcessGroup, Reduce, Sink, set_grad};
use parking_lot::Mutex;
use tch::{Device, Kind, Tensor};

use crate::{
    Result,
    buckets::{Bucket, Piece},
};

/// Buckets under way at once: more would hide no more of the network's time, and each holds its gradients of all ranks.
const UNDER_WAY: usize = 3;

/// Gathers the gradients of each bucket, from the last layer to the first, sums it over the ranks as soon as the backward pass has left it,
/// and adds this rank's rows of the sum to the gradients of its masters.
///
/// What a bucket held is freed then: beyond [`UNDER_WAY`] buckets a rank holds gradients of its own rows only.
#[derive(Debug)]
pub(crate) struct Reducer {
    shared: Arc<Shared>,
    sink: Sink,
    /// Number of each matrix that the model reads, by key.
    ids: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct Shared {
    group: Arc<ProcessGroup>,
    buckets: Vec<Bucket>,
    matrices: Vec<Matrix>,
    device: Device,
    state: Mutex<State>,
}

/// How the gradient of a matrix is laid out in its bucket.
#[derive(Debug)]
struct Matrix {
    bucket: usize,
    /// First row, rows, and where they go, in elements.
    moves: Vec<(i64, i64, i64)>,
}

#[derive(Debug)]
struct State {
    /// Whether the backward pass under way is the last of the round.
    armed: bool,
    /// The gradients of each bucket of this round, float32, where there are some.
    flats: Vec<Option<Tensor>>,
    /// Whether a gradient of each matrix came in this round.
    came: Vec<bool>,
    /// Matrices of each bucket whose gradient is still to come.
    missing: Vec<usize>,
    /// The bucket that is sent next: all ranks send in this order.
    next: usize,
    /// What is under way, oldest first.
    pending: VecDeque<(usize, Pending)>,
    /// Sums of this rank's rows over the rounds of a step, by bucket; the masters' gradients are views of it.
    own: Vec<Tensor>,
    failed: Option<joust_torch::Error>,
}

impl Reducer {
    /// Gives the `masters`, this rank's rows, their gradients; `stacks` are the weights of each matrix, top to bottom, with their rows.
    pub(crate) fn new(
        group: Arc<ProcessGroup>,
        buckets: Vec<Bucket>,
        stacks: &BTreeMap<String, Vec<(String, i64)>>,
        masters: &Weights,
    ) -> Result<Self> {
        let device = masters.0.values().next().map_or(Device::Cpu, Tensor::device);
        let (mut matrices, mut ids, mut own) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (number, bucket) in buckets.iter().enumerate() {
            for key in &bucket.matrices {
                ids.insert(key.clone(), matrices.len() as i64);
                matrices.push(Matrix { bucket: number, moves: moves(bucket, &stacks[key]) });
            }
            let begin = bucket.begins[group.rank()];
            let flat = Tensor::zeros([bucket.begins[group.rank() + 1] - begin], (Kind::Float, device));
            for piece in bucket.of(group.rank()).filter(|piece| piece.elements > 0) {
                let master = &masters.0[&piece.name];
                set_grad(master, &flat.narrow(0, piece.at - begin, piece.elements).view_as(master))?;
            }
            own.push(flat);
        }
        let all = buckets.len();
        let mut state = State {
            armed: false,
            flats: (0..all).map(|_| None).collect(),
            came: vec![false; matrices.len()],
            missing: Vec::new(),
            next: 0,
            pending: VecDeque::new(),
            own,
            failed: None,
        };
        state.rewind(&buckets);
        let shared = Arc::new(Shared { group, buckets, matrices, device, state: Mutex::new(state) });
        let told = Arc::downgrade(&shared);
        let sink = Sink::new(move |id, gradient| {
            if let Some(shared) = told.upgrade() {
                shared.arrived(id as usize, &gradient);
            }
        });
        Ok(Self { shared, sink, ids })
    }

    /// Returns what is given the gradient of a matrix.
    pub(crate) fn sink(&self, key: &str) -> Option<(&Sink, i64)> {
        Some((&self.sink, *self.ids.get(key)?))
    }

    /// Announces the last backward pass of the round.
    pub(crate) fn arm(&self) {
        self.shared.state.lock().armed = true;
    }

    /// Ends a round: sends what was not sent yet, and waits until this rank's gradients hold the sums over the ranks.
    ///
    /// Every rank takes part in every round, with or without gradients of its own; one that lost a gradient sends zeros in
    /// its place, and the ranks agree on its error before anything is updated.
    ///
    /// # Errors
    /// [`crate::Error::Border`] if a rank is lost, or with [`joust_torch::Error::Hook`] if a gradient of this one is.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut state = self.shared.state.lock();
        self.shared.send(&mut state, self.shared.buckets.len());
        while !state.pending.is_empty() {
            self.shared.fold(&mut state);
        }
        state.rewind(&self.shared.buckets);
        state.failed.take().map_or_else(|| Ok(self.sink.check()?), |error| Err(error.into()))
    }

    /// Sets all gradients to 0.
    pub(crate) fn clear(&self) {
        let _no_grad = tch::no_grad_guard();
        self.shared.state.lock().own.iter_mut().for_each(|flat| {
            // In place: what comes back is another handle on the same memory, and libtorch's errors panic.
            let _ = flat.zero_();
        });
    }

    /// Gives every rank the rows of all ranks: takes this rank's by `own`, in `kind`, and hands on those of the others with their place.
    ///
    /// # Errors
    /// [`crate::Error::Border`] if a rank is lost.
    pub(crate) fn share(
        &self,
        kind: Kind,
        own: &dyn Fn(&str) -> Tensor,
        put: &mut dyn FnMut(&Piece, &Tensor),
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let rank = self.shared.group.rank();
        for bucket in &self.shared.buckets {
            let all = self.shared.share(bucket, kind, own)?;
            for piece in bucket.pieces.iter().filter(|piece| piece.rank != rank && piece.elements > 0) {
                put(piece, &all.narrow(0, piece.at, piece.elements));
            }
        }
        Ok(())
    }
}

/// Finds the rows of a stack of weights in a bucket.
fn moves(bucket: &Bucket, stack: &[(String, i64)]) -> Vec<(i64, i64, i64)> {
    let mut moves = Vec::new();
    let mut top = 0;
    for (name, rows) in stack {
        let pieces = bucket.pieces.iter().filter(|piece| piece.name == *name && piece.elements > 0);
        moves.extend(pieces.map(|piece| (top + piece.rows.start, piece.rows.end - piece.rows.start, piece.at)));
        top += rows;
    }
    moves
}

impl State {
    /// Begins a round.
    fn rewind(&mut self, buckets: &[Bucket]) {
        self.came.fill(false);
        self.missing = buckets.iter().map(|bucket| bucket.matrices.len()).collect();
        (self.armed, self.next) = (false, 0);
    }
}

impl Shared {
    fn empty(&self, bucket: usize) -> Tensor {
        Tensor::zeros([self.buckets[bucket].elements()], (Kind::Float, self.device))
    }

    /// Adds the gradient of a matrix to its bucket, and sends the buckets that are whole.
    fn arrived(&self, id: usize, gradient: &Tensor) {
        let Matrix { bucket, moves } = &self.matrices[id];
        let mut state = self.state.lock();
        failpoint::pass("gradient_arrived");
        let flat = state.flats[*bucket].take().unwrap_or_else(|| self.empty(*bucket));
        let more = std::mem::replace(&mut state.came[id], true);
        for (top, rows, at) in moves {
            let from = gradient.narrow(0, *top, *rows);
            let mut to = flat.narrow(0, *at, from.numel() as i64).view_as(&from);
            if more { drop(to.g_add_(&from)) } else { to.copy_(&from) }
        }
        state.flats[*bucket] = Some(flat);
        if !state.armed {
            return;
        }
        state.missing[*bucket] = state.missing[*bucket].saturating_sub(1);
        let whole = state.missing[state.next..].iter().take_while(|missing| **missing == 0).count();
        let until = state.next + whole;
        self.send(&mut state, until);
    }

    /// Begins to sum the buckets from the next on.
    fn send(&self, state: &mut State, until: usize) {
        while state.next < until {
            let number = state.next;
            let flat = state.flats[number].take().unwrap_or_else(|| self.empty(number));
            let begun = match self.buckets[number].even {
                true => self.group.reduce_scatter(&flat),
                false => self.group.all_reduce(&flat, Reduce::Sum),
            };
            // Counted once it has begun: after a panic before it, the ranks' collectives would no longer meet.
            state.next += 1;
            match begun {
                Ok(pending) => state.pending.push_back((number, pending)),
                Err(error) => state.failed = Some(error),
            }
            failpoint::pass("rank_in_all_reduce");
            while state.pending.len() > UNDER_WAY {
                self.fold(state);
            }
        }
    }

    /// Waits for the oldest sum and adds this rank's rows of it to their gradients.
    fn fold(&self, state: &mut State) {
        let Some((number, pending)) = state.pending.pop_front() else { return };
        let bucket = &self.buckets[number];
        match pending.wait() {
            Ok(sum) => {
                let own = &mut state.own[number];
                let sum =
                    if bucket.even { sum } else { sum.narrow(0, bucket.begins[self.group.rank()], own.numel() as i64) };
                // In place, as in `clear`.
                let _ = tch::no_grad(|| own.g_add_(&sum));
            }
            Err(error) => state.failed = Some(error),
        }
    }

    /// Joins the parts of all ranks of a bucket, `[elements]`.
    fn share(&self, bucket: &Bucket, kind: Kind, own: &dyn Fn(&str) -> Tensor) -> Result<Tensor> {
        let rank = self.group.rank();
        let (begin, end) = (bucket.begins[rank], bucket.begins[rank + 1]);
        let fill = |part: &Tensor, begin: i64| {
            for piece in bucket.of(rank).filter(|piece| piece.elements > 0) {
                part.narrow(0, piece.at - begin, piece.elements).copy_(&own(&piece.name).view([-1]));
            }
        };
        if bucket.even {
            let part = Tensor::zeros([end - begin], (kind, self.device));
            fill(&part, begin);
            // Gloo moves no bfloat16, but bytes.
            let all = self.group.all_gather(&part.view_dtype(Kind::Uint8))?.wait()?;
            return Ok(all.view_dtype(kind));
        }
        // Parts of different lengths: each element is one rank's value and zeros.
        let all = Tensor::zeros([bucket.elements()], (Kind::Float, self.device));
        fill(&all, 0);
        Ok(self.group.all_reduce(&all, Reduce::Sum)?.wait()?.to_kind(kind))
    }
}
