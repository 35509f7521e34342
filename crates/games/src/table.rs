//! The policy: one logit an answer, trained by the real losses and optimizer.

use std::collections::BTreeMap;

use joust_model::Weights;
use joust_train::{Objective, Optimizer, OptimizerParams, Prepared};
use tch::{Kind, Tensor};

use crate::{Result, game::softmax};

const NAME: &str = "logits";

/// A table of logits in float64 with its optimizer.
pub(crate) struct Table {
    weights: Weights,
    optimizer: Optimizer,
}

impl Table {
    /// Starts at a policy.
    pub(crate) fn new(policy: &[f64]) -> Self {
        let logits: Vec<f64> = policy.iter().map(|p| p.ln()).collect();
        let logits = Tensor::from_slice(&logits).set_requires_grad(true);
        let weights = Weights(BTreeMap::from([(NAME.to_owned(), logits)]));
        let optimizer = Optimizer::new(OptimizerParams::default(), &weights);
        Self { weights, optimizer }
    }

    /// Returns the probability of each answer.
    pub(crate) fn policy(&self) -> Vec<f64> {
        softmax(&Vec::<f64>::try_from(self.weights.0[NAME].detach()).expect("a vector of float64"))
    }

    /// Updates the table once on prepared examples, each of whose answers is one token.
    pub(crate) fn update(&mut self, objective: &Objective, step: &[Prepared], learning_rate: f64) -> Result<()> {
        let tokens: Vec<i64> = step
            .iter()
            .flat_map(|prepared| &prepared.example.answers)
            .map(|answer| i64::from(answer.token_ids[0]))
            .collect();
        let mut logits = self.weights.0[NAME].shallow_clone();
        let logprobs = logits.log_softmax(0, Kind::Double).index_select(0, &Tensor::from_slice(&tokens));
        logits.zero_grad();
        objective.loss_of(step, &logprobs)?.backward();
        tch::no_grad(|| self.optimizer.update(&self.weights, learning_rate, 1.0))?;
        Ok(())
    }
}
