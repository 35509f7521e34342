//! Collectives between ranks: c10d's Gloo backend, and NCCL for tensors on GPUs in a build with the feature `cuda`.

use std::{
    ffi::{CString, c_void},
    ptr::null_mut,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, Store, ffi, store::milliseconds};

/// What values of all ranks are joined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Reduce {
    /// Their sum.
    Sum = 0,
    /// The largest.
    Max = 1,
    /// The smallest.
    Min = 2,
}

/// How a rank joins its group.
#[derive(Debug, Clone)]
pub struct Join {
    /// This rank, from 0.
    pub rank: usize,
    /// Ranks of the group.
    pub size: usize,
    /// The group's name in the store: a new one for each generation, so that ranks of an older one never meet those of a newer one.
    pub name: String,
    /// What all ranks must agree on, for example a hash of the run file.
    pub identity: String,
    /// Address of this machine that the others reach.
    pub host: String,
    /// Longest wait for the others, in joining and in each collective.
    pub timeout: Duration,
}

/// A handle on c10d's group.
#[derive(Debug)]
struct Handle(*mut c_void);

// SAFETY: c10d guards its queue of work with a lock, and the handle is freed once.
unsafe impl Send for Handle {}
// SAFETY: what is called through a shared handle is `abort`, which reads a list of connections that never changes and closes each under
// its own lock; NCCL's takes the lock of its communicators.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used after this.
        unsafe { ffi::joust_group_free(self.0) }
    }
}

/// Ranks that call the same collectives in the same order, each from one thread.
///
/// A rank on which a collective fails breaks its connections, so that all others fail too and none waits for long. A group is then of no
/// further use; a new one is joined under another name.
#[derive(Debug)]
pub struct ProcessGroup {
    handle: Arc<Handle>,
    store: Arc<Store>,
    join: Join,
    /// Held while a collective begins: c10d numbers them without a lock of its own.
    begins: Mutex<()>,
}

/// Ends what a group waits for, from any thread.
#[derive(Debug, Clone)]
pub struct Aborter(Arc<Handle>);

impl Aborter {
    /// Breaks the connections to all peers: what waits fails, on this rank and on the others.
    ///
    /// # Errors
    /// [`Error::Cpp`] if libtorch refuses.
    pub fn abort(&self) -> Result<()> {
        // SAFETY: the handle holds a reference to the group.
        ffi::check("abort", unsafe { ffi::joust_group_abort(self.0.0) })
    }
}

/// A collective under way. Its tensor must be neither read nor written before it was waited for.
#[derive(Debug)]
#[must_use = "the result is there only after `wait`"]
pub struct Pending {
    work: *mut c_void,
    output: Tensor,
    operation: &'static str,
    timeout: Duration,
    group: Arc<Handle>,
}

// SAFETY: the work is counted atomically and its state is guarded by a lock; it is freed once.
unsafe impl Send for Pending {}

impl Pending {
    /// Returns whether waiting would return at once.
    pub fn is_done(&self) -> bool {
        // SAFETY: the work is ours.
        unsafe { ffi::joust_work_done(self.work) }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// [`Error::Timeout`] if a rank does not take part in time, [`Error::PeerLost`] if one is gone or aborted, [`Error::Cpp`] for anything
    /// else.
    pub fn wait(self) -> Result<Tensor> {
        // SAFETY: the work is ours; it holds the tensors that it writes until it is done.
        let message = unsafe { ffi::joust_work_wait(self.work) };
        let done = typed(self.operation, self.timeout, ffi::check(self.operation, message));
        if done.is_err() {
            // The others may wait for ranks that wait for this one; that it failed is said already.
            let _ = Aborter(self.group.clone()).abort();
        }
        done.map(|()| self.output.shallow_clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and is not used after this; c10d holds its own while the work runs.
        unsafe { ffi::joust_work_free(self.work) }
    }
}

/// Whether this build has collectives for tensors there.
fn movable(device: Device) -> bool {
    device == Device::Cpu || (cfg!(feature = "cuda") && device.is_cuda())
}

/// Tells what Gloo and NCCL say apart.
fn typed(operation: &'static str, timeout: Duration, done: Result<()>) -> Result<()> {
    let Err(Error::Cpp { message, .. }) = done else { return done };
    let lower = message.to_lowercase();
    if lower.contains("timed out") || lower.contains("timeout") {
        return Err(Error::Timeout { operation, seconds: timeout.as_secs_f64() });
    }
    let gloo = ["connection closed", "connection reset", "broken pipe", "connect ", "socket", "closed by"];
    let nccl = ["remote process exited", "communicator was aborted"];
    if gloo.iter().chain(&nccl).any(|words| lower.contains(words)) {
        return Err(Error::PeerLost { operation, message });
    }
    Err(Error::Cpp { operation, message })
}

impl ProcessGroup {
    /// Meets the other ranks in the store and connects to each.
    ///
    /// # Errors
    /// [`Error::Absent`] naming the ranks that did not come in time, [`Error::Identity`] if one comes with another identity,
    /// [`Error::Rank`] for a rank beyond the size.
    pub fn join(store: Arc<Store>, join: Join) -> Result<Self> {
        if join.rank >= join.size {
            return Err(Error::Rank { rank: join.rank, size: join.size });
        }
        let name = |rank: usize| format!("{}/join/{rank}", join.name);
        store.set(&name(join.rank), join.identity.as_bytes())?;
        let began = std::time::Instant::now();
        for rank in 0..join.size {
            let left = join.timeout.saturating_sub(began.elapsed());
            match store.wait(&name(rank), left) {
                Ok(identity) if identity == join.identity.as_bytes() => {}
                Ok(identity) => {
                    let found = String::from_utf8_lossy(&identity).into_owned();
                    return Err(Error::Identity { rank, found, expected: join.identity });
                }
                Err(Error::Timeout { .. }) => {
                    // A store that fails here names nobody: those count as missing.
                    let came = |rank: &usize| store.get(&name(*rank)).ok().flatten().is_some();
                    let missing = (0..join.size).filter(|rank| !came(rank)).collect();
                    return Err(Error::Absent { missing, size: join.size, seconds: join.timeout.as_secs_f64() });
                }
                Err(error) => return Err(error),
            }
        }
        let c_string = |text: &str| CString::new(text).map_err(|_| Error::Key { key: text.to_owned() });
        let (prefix, host) = (c_string(&join.name)?, c_string(&join.host)?);
        let (rank, size, mut raw) = (join.rank as i32, join.size as i32, null_mut());
        // SAFETY: the strings outlive the call, the store's handle is alive and `raw` has room for the group's.
        let message = unsafe {
            let timeout = milliseconds(join.timeout);
            ffi::joust_group_open(store.raw, prefix.as_ptr(), host.as_ptr(), rank, size, timeout, &mut raw)
        };
        typed("connect to the other ranks", join.timeout, ffi::check("connect to the other ranks", message))?;
        Ok(Self { handle: Arc::new(Handle(raw)), store, join, begins: Mutex::new(()) })
    }

    /// Returns this rank, from 0.
    pub fn rank(&self) -> usize {
        self.join.rank
    }

    /// Returns the number of ranks.
    pub fn size(&self) -> usize {
        self.join.size
    }

    /// Returns the store in which the ranks met.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Returns what ends a wait from another thread.
    pub fn aborter(&self) -> Aborter {
        Aborter(self.handle.clone())
    }

    /// Begins to join a tensor of every rank element by element; all get the result, in place. float32, float64, int32, int64 or uint8,
    /// contiguous; for bfloat16 cast first, sums of many ranks want float32.
    ///
    /// # Errors
    /// [`Error::Layout`] for a tensor that is not contiguous, or lies where this build has no collectives.
    pub fn all_reduce(&self, tensor: &Tensor, operation: Reduce) -> Result<Pending> {
        self.begin("all_reduce", &[tensor], tensor, |group, work| {
            // SAFETY: the tensor outlives the call, and c10d holds it while the work runs.
            unsafe { ffi::joust_all_reduce(group, ffi::raw(tensor), operation as i32, work) }
        })
    }

    /// Begins to sum `[size·n, ...]` of every rank and to give rank r the r-th part `[n, ...]`.
    ///
    /// # Errors
    /// As [`Self::all_reduce`], and [`Error::Layout`] if the first dimension is no multiple of the ranks.
    pub fn reduce_scatter(&self, input: &Tensor) -> Result<Pending> {
        let size = self.join.size as i64;
        let mut shape = input.size();
        match shape.first_mut() {
            Some(first) if *first % size == 0 => *first /= size,
            _ => return Err(Error::Layout { operation: "reduce_scatter", found: input.size() }),
        }
        let output = Tensor::empty(shape, (input.kind(), input.device()));
        self.begin("reduce_scatter", &[input, &output], &output, |group, work| {
            // SAFETY: as in `all_reduce`.
            unsafe { ffi::joust_reduce_scatter(group, ffi::raw(&output), ffi::raw(input), work) }
        })
    }

    /// Begins to stack `[n, ...]` of every rank by rank, `[size·n, ...]`.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    pub fn all_gather(&self, input: &Tensor) -> Result<Pending> {
        let mut shape = input.size();
        match shape.first_mut() {
            Some(first) => *first *= self.join.size as i64,
            None => return Err(Error::Layout { operation: "all_gather", found: input.size() }),
        }
        let output = Tensor::empty(shape, (input.kind(), input.device()));
        self.begin("all_gather", &[input, &output], &output, |group, work| {
            // SAFETY: as in `all_reduce`.
            unsafe { ffi::joust_all_gather(group, ffi::raw(&output), ffi::raw(input), work) }
        })
    }

    /// Begins to give every rank the values of `root`, in place.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Pending> {
        self.begin("broadcast", &[tensor], tensor, |group, work| {
            // SAFETY: as in `all_reduce`.
            unsafe { ffi::joust_broadcast(group, ffi::raw(tensor), root as i32, work) }
        })
    }

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn barrier(&self) -> Result<()> {
        let nothing = Tensor::zeros([0], (Kind::Uint8, Device::Cpu));
        // SAFETY: the group is alive.
        let pending = self.begin("barrier", &[], &nothing, |group, work| unsafe { ffi::joust_barrier(group, work) })?;
        pending.wait().map(drop)
    }

    /// Gives every rank the bytes of `root`; the others pass none.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn broadcast_bytes(&self, bytes: &[u8], root: usize) -> Result<Vec<u8>> {
        let length = Tensor::from_slice(&[bytes.len() as i64]);
        let length = self.broadcast(&length, root)?.wait()?.int64_value(&[0]);
        if length == 0 {
            return Ok(Vec::new());
        }
        let own = self.rank() == root;
        let tensor = if own { Tensor::from_slice(bytes) } else { Tensor::zeros([length], (Kind::Uint8, Device::Cpu)) };
        Ok(Vec::<u8>::try_from(self.broadcast(&tensor, root)?.wait()?)?)
    }

    /// Gives every rank the bytes of all, by rank; they may differ in length.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?.wait()?;
        let lengths = Vec::<i64>::try_from(lengths)?;
        let longest = lengths.iter().copied().max().unwrap_or_default();
        if longest == 0 {
            return Ok(vec![Vec::new(); self.size()]);
        }
        let mut padded = bytes.to_vec();
        padded.resize(longest as usize, 0);
        let all = Vec::<u8>::try_from(self.all_gather(&Tensor::from_slice(&padded))?.wait()?)?;
        let parts = all.chunks_exact(longest as usize).zip(lengths);
        Ok(parts.map(|(part, length)| part[..length as usize].to_vec()).collect())
    }

    fn begin(
        &self,
        operation: &'static str,
        tensors: &[&Tensor],
        output: &Tensor,
        call: impl FnOnce(*mut c_void, *mut *mut c_void) -> *mut std::ffi::c_char,
    ) -> Result<Pending> {
        if let Some(tensor) = tensors.iter().find(|tensor| !tensor.is_contiguous() || !movable(tensor.device())) {
            return Err(Error::Layout { operation, found: tensor.size() });
        }
        let mut work = null_mut();
        let message = {
            let _one = self.begins.lock();
            call(self.handle.0, &mut work)
        };
        typed(operation, self.join.timeout, ffi::check(operation, message))?;
        let group = self.handle.clone();
        Ok(Pending { work, output: output.shallow_clone(), operation, timeout: self.join.timeout, group })
    }
}
