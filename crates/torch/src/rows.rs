//! Sums of rows by lists of their numbers.

use tch::{Device, Kind, Tensor};

use crate::{Result, ffi, native};

/// For every row of a result, the rows of the input that it is the sum of; and the same for the gradient.
#[derive(Debug)]
pub struct RowMap {
    forward: Lists,
    back: Lists,
}

impl RowMap {
    /// Returns another handle on the same lists.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { forward: self.forward.share(), back: self.back.share() }
    }
}

/// Numbers of rows, list after list, and where each list begins.
#[derive(Debug)]
struct Lists {
    begins: Tensor, // [lists + 1], int64
    items: Tensor,  // [all], int64
}

impl Lists {
    fn new(count: usize, pairs: impl Iterator<Item = (usize, usize)> + Clone, device: Device) -> Self {
        let mut begins = vec![0i64; count + 1];
        pairs.clone().for_each(|(list, _)| begins[list + 1] += 1);
        for list in 0..count {
            begins[list + 1] += begins[list];
        }
        let (mut next, mut items) = (begins.clone(), vec![0i64; begins[count] as usize]);
        for (list, item) in pairs {
            items[next[list] as usize] = item as i64;
            next[list] += 1;
        }
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Self { begins: tensor(&begins), items: tensor(&items) }
    }

    fn share(&self) -> Self {
        Self { begins: self.begins.shallow_clone(), items: self.items.shallow_clone() }
    }

    /// The same sums in tch operations.
    fn plain(&self, x: &Tensor) -> Tensor {
        let lists = self.begins.size()[0] - 1;
        let counts = self.begins.narrow(0, 1, lists) - self.begins.narrow(0, 0, lists);
        let owners = Tensor::arange(lists, (Kind::Int64, x.device())).repeat_interleave_self_tensor(&counts, 0, None);
        let zeros = Tensor::zeros([lists, x.size()[1]], (x.kind(), x.device()));
        zeros.index_add(0, &owners, &x.index_select(0, &self.items))
    }
}

impl RowMap {
    /// Adds row `from` of `[inputs, C]` to row `to` of `[results, C]` for every pair `(to, from)`.
    ///
    /// # Panics
    /// If a number is not below its count.
    pub fn new(results: usize, inputs: usize, pairs: &[(usize, usize)], device: Device) -> Self {
        Self {
            forward: Lists::new(results, pairs.iter().copied(), device),
            back: Lists::new(inputs, pairs.iter().map(|(to, from)| (*from, *to)), device),
        }
    }

    /// Sums the rows of `x` `[inputs, C]` to `[results, C]`; a row that nothing is added to is 0. Sums of several rows are made in float32 and rounded
    /// once.
    ///
    /// # Errors
    /// [`crate::Error::Cpp`] if `x` has other rows than the map was made for.
    pub fn sum(&self, x: &Tensor) -> Result<Tensor> {
        if !native(x) {
            return Ok(self.forward.plain(x));
        }
        let lists = [&self.forward.begins, &self.forward.items, &self.back.begins, &self.back.items].map(ffi::raw);
        let [out] = ffi::own("sum_rows", |out| {
            // SAFETY: the tensors outlive the call, C++ checks the numbers and copies the handles; `out` has room for one.
            unsafe { ffi::joust_sum_rows(ffi::raw(x), lists.as_ptr(), out) }
        })?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_gradients_are_those_of_the_plain_operations() {
        let pairs = [(0, 2), (1, 0), (1, 2), (1, 1), (3, 4)];
        let map = RowMap::new(5, 6, &pairs, Device::Cpu);
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
            let x = (Tensor::arange(24, (Kind::Float, Device::Cpu)).view([6, 4]) / 7.0).to_kind(kind);
            let [own, plain] = [x.copy(), x.copy()].map(|x| x.set_requires_grad(true));
            let (found, expected) = (map.sum(&own).expect("summed"), map.forward.plain(&plain));
            assert!(found.allclose(&expected, 1e-2, 1e-6, false), "{found} {expected}");
            assert_eq!(found.get(2).abs().sum(Kind::Float).double_value(&[]), 0.0);
            let weight = Tensor::arange(20, (Kind::Float, Device::Cpu)).view([5, 4]).to_kind(kind);
            (found * &weight).sum(Kind::Float).backward();
            (expected * &weight).sum(Kind::Float).backward();
            assert_eq!(own.grad(), plain.grad());
        }
    }

    #[test]
    fn rows_that_are_not_there_are_refused() {
        let map = RowMap::new(1, 9, &[(0, 8)], Device::Cpu);
        let error = map.sum(&Tensor::zeros([3, 2], tch::kind::FLOAT_CPU)).expect_err("three rows");
        assert!(error.to_string().contains("below 3, got 8"), "{error}");
    }
}
