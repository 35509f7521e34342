//! Optimizers on float32 masters.

mod adafactor;
mod adamw;
mod rmsprop;

use std::collections::BTreeMap;

use joust_model::Weights;
use joust_torch::square_sum;
use tch::Tensor;

pub use adafactor::AdafactorParams;
pub use adamw::AdamWParams;
pub use rmsprop::RmsPropParams;

use crate::Result;

/// Which optimizer, with its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerParams {
    /// Adam with decoupled weight decay: two moments an element.
    AdamW(AdamWParams),
    /// RMSprop: one mean of squares an element.
    RmsProp(RmsPropParams),
    /// Adafactor: means of squares of a matrix's rows and columns.
    Adafactor(AdafactorParams),
}

impl Default for OptimizerParams {
    fn default() -> Self {
        Self::AdamW(AdamWParams::default())
    }
}

impl OptimizerParams {
    /// Returns whether an update of a weight looks at all of it, so that ranks cannot share its rows.
    pub(crate) fn reads_whole_weights(&self) -> bool {
        matches!(self, Self::Adafactor(_))
    }

    /// Returns the same with another weight decay.
    pub fn with_weight_decay(self, weight_decay: f64) -> Self {
        match self {
            Self::AdamW(params) => Self::AdamW(AdamWParams { weight_decay, ..params }),
            Self::RmsProp(params) => Self::RmsProp(RmsPropParams { weight_decay, ..params }),
            Self::Adafactor(params) => Self::Adafactor(AdafactorParams { weight_decay, ..params }),
        }
    }
}

/// Tensors by the name of their weight.
type ByName = BTreeMap<String, Tensor>;

/// An optimizer with what it remembers of each weight.
#[derive(Debug)]
pub struct Optimizer {
    params: OptimizerParams,
    /// Updates made.
    pub updates: u64,
    /// What is remembered, by what it is; Adafactor's rows and columns hold matrices only.
    memory: Vec<(&'static str, ByName)>,
}

/// One weight with what it is updated by.
struct Update<'a> {
    weight: &'a Tensor,
    gradient: &'a Tensor,
    /// Becomes the weight rounded to its kind.
    copy: Option<&'a Tensor>,
    learning_rate: f64,
    /// Factor on the gradient.
    scale: f64,
    /// Updates made, this one included.
    updates: u64,
}

impl Update<'_> {
    fn scaled(&self) -> Tensor {
        if self.scale == 1.0 { self.gradient.shallow_clone() } else { self.gradient * self.scale }
    }

    /// Takes a share off a matrix.
    fn decay(&self, weight_decay: f64) {
        if weight_decay > 0.0 && self.weight.dim() > 1 {
            // In place: what comes back is another handle on the same memory, and libtorch's errors panic.
            let _ = self.weight.shallow_clone().g_mul_scalar_(1.0 - self.learning_rate * weight_decay);
        }
    }
}

impl Optimizer {
    /// Starts without any memory of the tensors of `weights`.
    pub fn new(params: OptimizerParams, weights: &Weights) -> Self {
        let make = |zeros: &dyn Fn(&Tensor) -> Option<Tensor>| -> ByName {
            // Another rank's weight has no rows here.
            let own = weights.0.iter().filter(|(_, weight)| weight.numel() > 0);
            own.filter_map(|(name, weight)| Some((name.clone(), zeros(weight)?))).collect()
        };
        let like = |weight: &Tensor| Some(weight.detach().zeros_like());
        let mean = |weight: &Tensor, dim: i64| {
            (weight.dim() > 1).then(|| weight.detach().zeros_like().mean_dim(dim, true, weight.kind()))
        };
        let memory = match params {
            OptimizerParams::AdamW(_) => vec![("adam_first", make(&like)), ("adam_second", make(&like))],
            OptimizerParams::RmsProp(_) => vec![("square", make(&like))],
            OptimizerParams::Adafactor(_) => vec![
                ("square_of_rows", make(&|weight| mean(weight, -1))),
                ("square_of_columns", make(&|weight| mean(weight, -2))),
                ("square", make(&|weight| (weight.dim() < 2).then(|| weight.detach().zeros_like()))),
            ],
        };
        Self { params, updates: 0, memory }
    }

    /// Lists what is remembered, by what it is and by weight; for checkpoints.
    pub fn memory(&self) -> impl Iterator<Item = (&'static str, &BTreeMap<String, Tensor>)> {
        self.memory.iter().map(|(what, tensors)| (*what, tensors))
    }

    /// Updates every weight in place from its gradient times `scale`; weights without a gradient stay.
    ///
    /// # Errors
    /// [`crate::Error::Border`] if libtorch refuses.
    pub fn update(&mut self, weights: &Weights, learning_rate: f64, scale: f64) -> Result<()> {
        self.update_with(weights, &BTreeMap::new(), learning_rate, scale)
    }

    /// Updates as [`Self::update`] does, and rounds each new weight into its copy, if it has one.
    pub(crate) fn update_with(
        &mut self,
        weights: &Weights,
        copies: &ByName,
        learning_rate: f64,
        scale: f64,
    ) -> Result<()> {
        self.updates += 1;
        for (name, weight) in &weights.0 {
            self.update_one((name, weight), copies.get(name), learning_rate, scale)?;
        }
        Ok(())
    }

    /// Updates as [`Self::update_with`] does, and returns the squared norms of the weights and of what they moved by.
    pub(crate) fn update_measured(
        &mut self,
        weights: &Weights,
        copies: &ByName,
        learning_rate: f64,
        scale: f64,
    ) -> Result<[f64; 2]> {
        self.updates += 1;
        let mut squares = [0.0; 2];
        for (name, weight) in &weights.0 {
            let before = weight.detach().copy();
            self.update_one((name, weight), copies.get(name), learning_rate, scale)?;
            squares[0] += square_sum(&before)?;
            squares[1] += square_sum(&(weight.detach() - before))?;
        }
        Ok(squares)
    }

    fn update_one(
        &self,
        (name, weight): (&str, &Tensor),
        copy: Option<&Tensor>,
        learning_rate: f64,
        scale: f64,
    ) -> Result<()> {
        let gradient = weight.grad();
        if !gradient.defined() {
            return Ok(());
        }
        let weight = weight.detach();
        let own: Vec<&Tensor> = self.memory.iter().filter_map(|(_, tensors)| tensors.get(name)).collect();
        let updates = self.updates;
        let at = Update { weight: &weight, gradient: &gradient, copy, learning_rate, scale, updates };
        match (&self.params, own.as_slice()) {
            // It writes the copy in the same pass.
            (OptimizerParams::AdamW(params), [first, second]) => return adamw::update(params, &at, [first, second]),
            (OptimizerParams::RmsProp(params), [square]) => rmsprop::update(params, &at, square),
            (OptimizerParams::Adafactor(params), means @ ([_] | [_, _])) => adafactor::update(params, &at, means),
            _ => unreachable!("memory was made for every weight"),
        }
        if let Some(copy) = copy {
            copy.shallow_clone().copy_(&weight);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four updates of `Σ W³ + Σ v³ + Σ (Σ_j W_ij)·v_i` in float64, W `[2, 3]` and v `[2]`; returns W and v. The expected values of the tests
    /// come from the same lines in PyTorch 2.11.
    pub(super) fn four_updates(params: OptimizerParams, learning_rate: f64) -> Vec<f64> {
        let leaf = |values: &[f64]| Tensor::from_slice(values).set_requires_grad(true);
        let matrix = Tensor::from_slice(&[1.0, -2.0, 0.5, 0.25, 3.0, -1.5]).view([2, 3]).set_requires_grad(true);
        let weights = Weights([("w".to_owned(), matrix), ("v".to_owned(), leaf(&[0.5, -1.0]))].into());
        let mut optimizer = Optimizer::new(params, &weights);
        let kind = tch::Kind::Double;
        for _ in 0..4 {
            weights.0.values().for_each(|weight| weight.shallow_clone().zero_grad());
            let (w, v) = (&weights.0["w"], &weights.0["v"]);
            let loss = w.pow_tensor_scalar(3).sum(kind)
                + v.pow_tensor_scalar(3).sum(kind)
                + (w.sum_dim_intlist(1i64, false, kind) * v).sum(kind);
            loss.backward();
            tch::no_grad(|| optimizer.update(&weights, learning_rate, 1.0)).expect("updated");
        }
        let flat = |name: &str| Vec::<f64>::try_from(weights.0[name].detach().view(-1)).expect("floats");
        [flat("w"), flat("v")].concat()
    }

    pub(super) fn assert_torch(found: &[f64], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found}, torch {expected}");
        }
    }

    #[test]
    fn adafactor_remembers_rows_and_columns_only() {
        let weights = Weights([("w".to_owned(), Tensor::zeros([5, 7], tch::kind::FLOAT_CPU))].into());
        let sizes = |params| -> Vec<usize> {
            Optimizer::new(params, &weights).memory().map(|(_, all)| all.values().map(Tensor::numel).sum()).collect()
        };
        assert_eq!(sizes(OptimizerParams::Adafactor(AdafactorParams::default())), [5, 7, 0]);
        assert_eq!(sizes(OptimizerParams::default()), [35, 35]);
        assert_eq!(sizes(OptimizerParams::RmsProp(RmsPropParams::default())), [35]);
    }
}
