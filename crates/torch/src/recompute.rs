//! Pieces of a model whose inner results are not kept: the backward pass computes them again.
//!
//! See "Training Deep Nets with Sublinear Memory Cost", Chen et al., <https://arxiv.org/abs/1604.06174>.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tch::Tensor;

use crate::{Result, ffi};

type Piece = Box<dyn Fn(&Tensor, Option<&Tensor>) -> [Tensor; 2]>;

extern "C" fn call(context: *mut c_void, x: ffi::Raw, more: ffi::Raw, out: *mut ffi::Raw) -> bool {
    // SAFETY: C++ made the tensors with `new` for this call, and tch frees them with `delete`; `more` may be null.
    let own = |raw: ffi::Raw| (!raw.is_null()).then(|| unsafe { Tensor::from_ptr(raw.cast_mut().cast()) });
    let (x, more) = (own(x), own(more));
    // SAFETY: the context is the box of `recomputed`, which C++ gives back only when it can call no more; it is called by one thread at a time.
    let piece = unsafe { &*context.cast::<Piece>() };
    let run = || x.as_ref().map(|x| piece(x, more.as_ref()));
    let Ok(Some(made)) = catch_unwind(AssertUnwindSafe(run)) else { return false };
    for (at, tensor) in made.into_iter().enumerate() {
        // SAFETY: `out` has room for two; C++ takes each tensor over and deletes it.
        unsafe { *out.add(at) = ffi::raw(&tensor) };
        std::mem::forget(tensor);
    }
    true
}

extern "C" fn release(context: *mut c_void) {
    // SAFETY: C++ calls this once, at the end of the last reference, with the box of `recomputed`.
    drop(unsafe { Box::from_raw(context.cast::<Piece>()) });
}

/// Runs `piece` on two tensors, of which the second may be missing. Where gradients are recorded only its inputs are kept, and the backward pass runs
/// it again: it must give the same each time.
///
/// # Errors
/// [`crate::Error::Cpp`] if the piece panics.
pub fn recomputed(
    x: &Tensor,
    more: Option<&Tensor>,
    piece: impl Fn(&Tensor, Option<&Tensor>) -> [Tensor; 2] + 'static,
) -> Result<[Tensor; 2]> {
    let context: Box<Piece> = Box::new(Box::new(piece));
    ffi::own("recompute", |out| {
        let more = more.map_or(std::ptr::null(), ffi::raw);
        // SAFETY: the tensors outlive the call, `out` has room for two, and the box is given away here and comes back through `release`, once.
        unsafe { ffi::joust_recompute(ffi::raw(x), more, Box::into_raw(context).cast(), call, release, out) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use tch::{Kind, kind::FLOAT_CPU};

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    /// Gradients of `Σ x·w² + Σ 3·(m + x)` in x, m and w, by the piece computed again or at once.
    fn gradients(again: bool, records_input: bool) -> Vec<Vec<f32>> {
        let (x, more, weight) = (leaf(&[1.0, -2.0]), leaf(&[0.5, 4.0]), leaf(&[3.0, 5.0]));
        let x = if records_input { x } else { x.detach() };
        let own = weight.shallow_clone();
        let piece = move |x: &Tensor, more: Option<&Tensor>| [x * &own * &own, more.expect("two") + x];
        let [a, b] = if again { recomputed(&x, Some(&more), piece).expect("runs") } else { piece(&x, Some(&more)) };
        let sum: Tensor = a + b * 3.0;
        sum.sum(Kind::Float).backward();
        let gradient = |tensor: &Tensor| match tensor.grad().defined() {
            true => Vec::<f32>::try_from(tensor.grad()).expect("floats"),
            false => Vec::new(),
        };
        [&x, &more, &weight].map(gradient).to_vec()
    }

    #[test]
    fn gradients_are_those_of_the_piece_itself() {
        for records_input in [true, false] {
            assert_eq!(gradients(true, records_input), gradients(false, records_input));
        }
        assert_eq!(gradients(true, true), [[12.0, 28.0], [3.0, 3.0], [6.0, -20.0]]);
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let error = recomputed(&Tensor::zeros([1], FLOAT_CPU), None, |_, _| -> [Tensor; 2] { panic!("no") })
            .expect_err("it panicked");
        assert!(error.to_string().contains("panicked"), "{error}");
    }

    #[test]
    fn nothing_is_recorded_without_gradients() {
        let _no_grad = tch::no_grad_guard();
        let [a, b] = recomputed(&leaf(&[1.0]), None, |x, _| [x * 2.0, x * 3.0]).expect("runs");
        assert!(!a.requires_grad() && b.double_value(&[0]) == 3.0);
    }
}
