//! Master weights and what the model computes with instead: copies whose gradients reach the masters.

use std::{
    any::Any,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null_mut,
    sync::{Arc, Mutex, PoisonError},
};

use tch::Tensor;

use crate::{Error, Result, ffi};

/// What is given the gradients of copies instead of their masters, each with the number of its copy.
///
/// It runs on the thread of the backward pass, in the middle of it. No panic may cross into C++: the first one is kept for
/// [`Sink::check`], and the backward pass goes on.
#[derive(Debug)]
pub struct Sink {
    raw: *mut c_void,
    panicked: Panicked,
}

/// What the first panic of a sink said.
type Panicked = Arc<Mutex<Option<String>>>;

// SAFETY: the sink counts its references atomically, and what it calls is Send and Sync.
unsafe impl Send for Sink {}
// SAFETY: as above; nothing is changed through a shared sink.
unsafe impl Sync for Sink {}

/// What C++ keeps of a sink.
struct Context {
    call: Box<dyn Fn(i64, Tensor) + Send + Sync>,
    panicked: Panicked,
}

/// Returns what a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".to_owned())
}

extern "C" fn call(context: *mut c_void, id: i64, gradient: ffi::Raw) {
    // SAFETY: C++ made the gradient with `new` for this call, and tch frees it with `delete`.
    let gradient = unsafe { Tensor::from_ptr(gradient.cast_mut().cast()) };
    // SAFETY: the context is the box of `Sink::new`, which C++ gives back only when it can call no more.
    let Context { call, panicked } = unsafe { &*context.cast::<Context>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(id, gradient))) {
        panicked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| text_of(&*panic));
    }
}

extern "C" fn release(context: *mut c_void) {
    // SAFETY: C++ calls this once, at the end of the last reference, with the box of `Sink::new`.
    drop(unsafe { Box::from_raw(context.cast::<Context>()) });
}

impl Sink {
    /// Makes a sink; it lives as long as this handle or a copy that gives to it.
    pub fn new(call_back: impl Fn(i64, Tensor) + Send + Sync + 'static) -> Self {
        let panicked = Panicked::default();
        let context = Box::new(Context { call: Box::new(call_back), panicked: panicked.clone() });
        // SAFETY: the box is given away here and comes back through `release`, once.
        let raw = unsafe { ffi::joust_sink_new(Box::into_raw(context).cast(), call, release) };
        Self { raw, panicked }
    }

    /// Returns the first panic since the last call: what was gathered since then lacks a gradient.
    ///
    /// # Errors
    /// [`Error::Hook`] with what the panic said.
    pub fn check(&self) -> Result<()> {
        let panicked = self.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        panicked.map_or(Ok(()), |message| Err(Error::Hook { message }))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and is not used after this.
        unsafe { ffi::joust_sink_free(self.raw) }
    }
}

/// Returns a tensor that stands for one to three `masters`, stacked by rows, with the values of `copy`.
///
/// Its gradient is added to the masters' own gradients, in the masters' kind; or a sink is given it, with a number, in the kind of `copy`.
/// The masters then only say that there is a gradient, and may be parts of what `copy` holds. The caller keeps `copy` equal to the masters.
///
/// # Errors
/// [`crate::Error::Cpp`] if there are more masters.
pub fn compute_copy(copy: &Tensor, masters: &[&Tensor], sink: Option<(&Sink, i64)>) -> Result<Tensor> {
    let raw: Vec<ffi::Raw> = masters.iter().map(|master| ffi::raw(master)).collect();
    let (sink, id) = sink.map_or((null_mut(), 0), |(sink, id)| (sink.raw, id));
    let [out] = ffi::own("compute_copy", |out| {
        // SAFETY: the masters outlive the call, which copies their handles and that of the sink; `out` has room for one.
        unsafe { ffi::joust_compute_copy(ffi::raw(copy), raw.as_ptr(), raw.len() as i64, sink, id, out) }
    })?;
    Ok(out)
}

/// Makes `gradient` the memory in which the gradient of a leaf is gathered.
///
/// # Errors
/// [`crate::Error::Cpp`] if shape or kind do not fit.
pub fn set_grad(leaf: &Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: both tensors outlive the call, which copies the handle of the gradient.
    ffi::check("set_grad", unsafe { ffi::joust_set_grad(ffi::raw(leaf), ffi::raw(gradient)) })
}

/// Drops the gradient of a leaf, memory included.
///
/// # Errors
/// [`crate::Error::Cpp`] if libtorch refuses.
pub fn clear_grad(leaf: &Tensor) -> Result<()> {
    // SAFETY: the tensor outlives the call.
    ffi::check("clear_grad", unsafe { ffi::joust_clear_grad(ffi::raw(leaf)) })
}

/// Returns how often the tensor's memory was written in place, through it or through a detached view of it.
pub fn version(tensor: &Tensor) -> i64 {
    // SAFETY: the tensor outlives the call, which reads a counter.
    unsafe { ffi::joust_version(ffi::raw(tensor)) }
}
