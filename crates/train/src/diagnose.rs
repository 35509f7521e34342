//! What a step does to the policy beside its loss, measured on the step's first micro-batch before the update.

use std::sync::Arc;

use joust_core::{Example, Target};
use joust_losses::{PairLoss, TopK, entanglement, idealised_margin, top_k};
use joust_model::{Llama, SequenceBatch};
use joust_torch::Sink;
use parking_lot::Mutex;
use tch::{Kind, Tensor};

use crate::{Objective, Prepared, Result, StepMetrics, Trainer, sums::Sums, trainer::Known};

/// Tokens of the top-k figures, as in the paper.
const TOP_K: i64 = 10;
/// Share of annotators that prefer the chosen answer, where the judge only says who won; the paper's.
const ANNOTATORS: f64 = 0.75;

impl Trainer {
    /// Measures how sure the policy is of the answers that it is trained towards, and, of pairs, how it ranks them and how a step moves both.
    ///
    /// Costs about a forward pass of a micro-batch and the gradients of one pair. Nothing is changed.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if libtorch refuses.
    pub fn diagnose(&mut self, step: &[Vec<Prepared>]) -> Result<StepMetrics> {
        let mut metrics = StepMetrics::new();
        self.master.measures = true;
        let Some(batch) = step.iter().find(|batch| !batch.is_empty()) else { return Ok(metrics) };
        let policy = self.master.model()?;
        self.sureness(&policy, batch, &mut metrics);
        let Objective::Pair(loss) = self.objective else { return Ok(metrics) };
        let sums = self.own_sums(&policy, batch)?;
        ranking(&loss, batch, &sums, &mut metrics);
        self.shifts(&batch[0], &mut metrics)?;
        Ok(metrics)
    }

    /// Measures mass and entropy of the most probable tokens along the answers that are made more probable; of a group all of them.
    fn sureness(&self, policy: &Llama, batch: &[Prepared], metrics: &mut StepMetrics) {
        let _no_grad = tch::no_grad_guard();
        let _permit = self.device.acquire();
        let wanted = |prepared: &Prepared| match prepared.example.target {
            Target::Pair { .. } => 1,
            _ => prepared.example.answers.len(),
        };
        let sequences: Vec<(&[u32], &[u32])> = batch
            .iter()
            .flat_map(|p| {
                p.example
                    .answers
                    .iter()
                    .take(wanted(p))
                    .map(|a| (p.example.prompt_ids.as_slice(), a.token_ids.as_slice()))
            })
            .collect();
        let packed = SequenceBatch::new(&sequences, self.device.torch());
        let (_, spread) = packed.logprobs_with_spread(policy, &packed.hidden_rows(policy), TOP_K);
        let TopK { mass, entropy, .. } = top_k(&spread.top);
        for (name, values) in [("top_k_mass", mass), ("top_k_entropy", entropy), ("entropy", spread.entropy)] {
            metrics.insert(format!("diagnostics/{name}"), values.mean(Kind::Double).double_value(&[]));
        }
    }

    /// Measures what a small step on one pair does to log π of both of its answers.
    fn shifts(&self, pair: &Prepared, metrics: &mut StepMetrics) -> Result<()> {
        let (chosen, rejected) = (self.gradient(&pair.example, &[0])?, self.gradient(&pair.example, &[1])?);
        // ‖a + b‖² = ‖a‖² + ‖b‖² + 2⟨a, b⟩: no gradient need be kept for the product.
        let product = (self.gradient(&pair.example, &[0, 1])? - chosen - rejected) / 2.0;
        let [up, down] = entanglement([chosen, rejected], product);
        for (name, value) in [
            ("gradient_chosen", chosen),
            ("gradient_rejected", rejected),
            ("gradient_product", product),
            ("shift_chosen", up),
            ("shift_rejected", down),
        ] {
            metrics.insert(format!("diagnostics/{name}"), value);
        }
        Ok(())
    }

    /// Computes the squared norm of the gradient of log π of answers together, over all weights.
    fn gradient(&self, example: &Example, answers: &[usize]) -> Result<f64> {
        let sequence = |answer: &usize| (example.prompt_ids.as_slice(), example.answers[*answer].token_ids.as_slice());
        let sequences: Vec<(&[u32], &[u32])> = answers.iter().map(sequence).collect();
        let squares = Arc::new(Mutex::new(0.0));
        let told = squares.clone();
        let sink = Sink::new(move |_, gradient| {
            *told.lock() += gradient.to_kind(Kind::Float).square().sum(Kind::Double).double_value(&[]);
        });
        let _permit = self.device.acquire();
        let model = self.master.model_with(&|_| Some((&sink, 0)))?;
        SequenceBatch::new(&sequences, self.device.torch()).logps(&model).sum(Kind::Float).backward();
        sink.check()?;
        let squares = *squares.lock();
        Ok(squares)
    }
}

/// Measures how often the policy, and of DPO the one that it aims at, finds the chosen answer more probable.
fn ranking(loss: &PairLoss, batch: &[Prepared], sums: &[f64], metrics: &mut StepMetrics) {
    let share = |ranked: &dyn Fn((usize, &Prepared)) -> bool| {
        batch.iter().enumerate().filter(|pair| ranked(*pair)).count() as f64 / batch.len() as f64
    };
    metrics.insert("diagnostics/ranking_accuracy".into(), share(&|(i, _)| sums[2 * i] > sums[2 * i + 1]));
    let held = batch.iter().flat_map(|p| &p.known).all(|known| !known.reference.is_empty());
    let PairLoss::Dpo { beta, .. } = *loss else { return };
    if !held {
        return;
    }
    let sum = |known: &Known| known.reference.iter().map(|value| f64::from(*value)).sum::<f64>();
    let ideal = |(_, p): (usize, &Prepared)| {
        let alpha = match p.example.target {
            Target::Pair { p, .. } if p < 1.0 => p,
            _ => ANNOTATORS,
        };
        idealised_margin(alpha, beta, sum(&p.known[0]) - sum(&p.known[1])) > 0.0
    };
    metrics.insert("diagnostics/idealised_accuracy".into(), share(&ideal));
}

/// Measures how far the policy is from the one that sampled: KL(behavior ‖ policy) in nats a token, by `e^d − 1 − d` with d = log π − log of the
/// probability that the token was sampled with (Schulman's k3, <http://joschu.net/blog/kl-approx.html>).
pub(crate) fn mismatch(batch: &[Prepared], logprobs: &Tensor, sums: &mut Sums) {
    let answers = || batch.iter().flat_map(|prepared| &prepared.example.answers);
    if answers().any(|answer| answer.behavior_logprobs.len() != answer.token_ids.len()) {
        return; // given, not sampled
    }
    let behavior: Vec<f32> = answers().flat_map(|answer| answer.behavior_logprobs.iter().copied()).collect();
    let apart = logprobs.detach() - Tensor::from_slice(&behavior).to_device(logprobs.device());
    sums.add("sampling/mismatch_kl", &(apart.expm1() - apart));
}
