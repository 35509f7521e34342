//! Declarations of `csrc/`, and the two conversions that they need.

use std::ffi::{CStr, c_char, c_void};

use tch::Tensor;

use crate::{Error, Result};

/// `at::Tensor` behind a pointer, as tch holds it.
pub(crate) type Raw = *const c_void;

/// Constants of one AdamW step, as C++ reads them.
#[repr(C)]
pub(crate) struct AdamWStep {
    pub(crate) scale: f32,
    pub(crate) decay: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) step_size: f32,
    pub(crate) root_correction: f32,
    pub(crate) epsilon: f32,
}

/// What a dropout mask is drawn from, as C++ reads it.
#[repr(C)]
pub(crate) struct MaskKey {
    pub(crate) key: [u32; 2],
    pub(crate) place: [u32; 3],
    pub(crate) below: u32,
    pub(crate) scale: f32,
}

unsafe extern "C" {
    pub(crate) fn joust_norm(x: Raw, add: Raw, weight: Raw, eps: f64, out: *mut Raw, sum: *mut Raw) -> *mut c_char;
    pub(crate) fn joust_gate(gate_up: Raw, out: *mut Raw) -> *mut c_char;
    pub(crate) fn joust_rope(qkv: Raw, cos: Raw, sin: Raw, heads: *const i64, out: *mut Raw) -> *mut c_char;
    pub(crate) fn joust_recompute(
        x: Raw,
        more: Raw,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void, Raw, Raw, *mut Raw) -> bool,
        release: extern "C" fn(*mut c_void),
        out: *mut Raw,
    ) -> *mut c_char;
    pub(crate) fn joust_sum_rows(x: Raw, lists: *const Raw, out: *mut Raw) -> *mut c_char;
    pub(crate) fn joust_logprobs(
        rows: Raw,
        weight: Raw,
        targets: Raw,
        limits: *const i64,
        k: i64,
        out: *mut Raw,
    ) -> *mut c_char;
    pub(crate) fn joust_divergence(
        rows: Raw,
        weight: Raw,
        held: Raw,
        held_weight: Raw,
        logits: i64,
        out: *mut Raw,
    ) -> *mut c_char;
    pub(crate) fn joust_compute_copy(
        copy: Raw,
        masters: *const Raw,
        count: i64,
        sink: *mut c_void,
        id: i64,
        out: *mut Raw,
    ) -> *mut c_char;
    pub(crate) fn joust_sink_new(
        context: *mut c_void,
        call: extern "C" fn(*mut c_void, i64, Raw),
        release: extern "C" fn(*mut c_void),
    ) -> *mut c_void;
    pub(crate) fn joust_sink_free(sink: *mut c_void);
    pub(crate) fn joust_set_grad(tensor: Raw, grad: Raw) -> *mut c_char;
    pub(crate) fn joust_clear_grad(tensor: Raw) -> *mut c_char;
    pub(crate) fn joust_version(tensor: Raw) -> i64;
    pub(crate) fn joust_square_sum(values: Raw, out: *mut f64) -> *mut c_char;
    pub(crate) fn joust_adamw(
        weight: Raw,
        gradient: Raw,
        first: Raw,
        second: Raw,
        copy: Raw,
        with: *const AdamWStep,
    ) -> *mut c_char;
    pub(crate) fn joust_can_pack() -> bool;
    pub(crate) fn joust_pack(weight: Raw, out: *mut Raw) -> *mut c_char;
    pub(crate) fn joust_packed_linear(factors: *const Raw, outputs: i64, wide: bool, out: *mut Raw) -> *mut c_char;
    pub(crate) fn joust_dropout(x: Raw, mask: *const MaskKey, out: *mut Raw) -> *mut c_char;
    pub(crate) fn joust_attend(
        qkv: Raw,
        tables: *const Raw,
        cache: *const Raw,
        sizes: *const i64,
        out: *mut Raw,
    ) -> *mut c_char;
    pub(crate) fn joust_draw(
        logits: Raw,
        uniforms: *const f64,
        temperature: f64,
        ids: *mut i64,
        logprobs: *mut f32,
    ) -> *mut c_char;
    pub(crate) fn joust_store_open(
        host: *const c_char,
        port: *mut u16,
        serve: bool,
        timeout_ms: i64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn joust_store_free(store: *mut c_void);
    pub(crate) fn joust_store_set(store: *mut c_void, key: *const c_char, value: *const u8, length: i64)
    -> *mut c_char;
    pub(crate) fn joust_store_check(store: *mut c_void, key: *const c_char, present: *mut bool) -> *mut c_char;
    pub(crate) fn joust_store_get(
        store: *mut c_void,
        key: *const c_char,
        into: *mut c_void,
        take: extern "C" fn(*mut c_void, *const u8, i64),
    ) -> *mut c_char;
    pub(crate) fn joust_store_add(store: *mut c_void, key: *const c_char, by: i64, sum: *mut i64) -> *mut c_char;
    pub(crate) fn joust_group_open(
        store: *mut c_void,
        prefix: *const c_char,
        host: *const c_char,
        rank: i32,
        size: i32,
        timeout_ms: i64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn joust_group_free(group: *mut c_void);
    pub(crate) fn joust_group_abort(group: *mut c_void) -> *mut c_char;
    pub(crate) fn joust_all_reduce(
        group: *mut c_void,
        tensor: Raw,
        operation: i32,
        work: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn joust_reduce_scatter(
        group: *mut c_void,
        output: Raw,
        input: Raw,
        work: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn joust_all_gather(group: *mut c_void, output: Raw, input: Raw, work: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn joust_broadcast(group: *mut c_void, tensor: Raw, root: i32, work: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn joust_barrier(group: *mut c_void, work: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn joust_work_wait(work: *mut c_void) -> *mut c_char;
    pub(crate) fn joust_work_done(work: *mut c_void) -> bool;
    pub(crate) fn joust_work_free(work: *mut c_void);
    fn free(block: *mut c_void);
}

/// Returns the pointer that C++ reads; it lives as long as `tensor`.
pub(crate) fn raw(tensor: &Tensor) -> Raw {
    tensor.as_ptr().cast()
}

/// Takes ownership of tensors that C++ made with `new`.
pub(crate) fn own<const N: usize>(
    operation: &'static str,
    call: impl FnOnce(*mut Raw) -> *mut c_char,
) -> Result<[Tensor; N]> {
    let mut made = [std::ptr::null(); N];
    check(operation, call(made.as_mut_ptr()))?;
    // SAFETY: without an error, C++ has set every pointer to a tensor of its own `new`, which tch frees with `delete`.
    Ok(made.map(|tensor: Raw| unsafe { Tensor::from_ptr(tensor.cast_mut().cast()) }))
}

/// Turns the string of a guarded C++ function into an error.
pub(crate) fn check(operation: &'static str, message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a C string made by `strdup`, ours to read and to free once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        free(message.cast());
        text
    };
    Err(Error::Cpp { operation, message: text })
}
