//! One step on preference pairs: prepare, loss, gradients by micro-batch, update, metrics under TRL's names.

use std::collections::BTreeMap;

use joust_core::{Example, Player, Target};
use joust_losses::{PairLogps, PairLoss};
use joust_model::{Device, Llama};
use tch::{Kind, Tensor};

use crate::{Error, Master, Result, SequenceBatch};

/// An example with what is computed once before its first epoch.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The example.
    pub example: Example,
    /// log π_ref of chosen and rejected, in nats, under the reference that the manifest names.
    pub ref_logps: [f32; 2],
}

/// Metrics of a step by TRL's name.
pub type StepMetrics = BTreeMap<String, f64>;

/// Trains a policy on pairs against a fixed reference.
#[derive(Debug)]
pub struct PairTrainer {
    /// The policy's weights and optimizer.
    pub master: Master,
    loss: PairLoss,
    device: Device,
}

/// Sums over a step of what becomes a mean at its end.
#[derive(Debug, Default)]
struct Sums {
    pairs: f64,
    tokens: f64,
    values: BTreeMap<&'static str, f64>,
}

impl Sums {
    fn add(&mut self, name: &'static str, values: &Tensor) {
        *self.values.entry(name).or_default() += values.sum(Kind::Double).double_value(&[]);
    }
}

fn pair_of(example: &Example) -> Result<f64> {
    let Target::Pair { p, .. } = example.target;
    let answers = example.answers.len();
    let problem = if answers != 2 {
        format!("it has {answers} answers, a pair loss needs 2")
    } else if example.prompt_ids.is_empty() || example.answers.iter().any(|answer| answer.token_ids.is_empty()) {
        "its prompt or an answer has no tokens".to_owned()
    } else {
        return Ok(p);
    };
    Err(Error::Example { id: example.id.to_string(), problem })
}

/// Returns the scores of chosen and of rejected answers.
fn scores_of(examples: &[&Example]) -> Result<[Vec<f32>; 2]> {
    let score = |example: &&Example, side: usize| {
        let problem = || "its answers have no scores, which the loss needs (feedback.ask = \"score\")".to_owned();
        let score = example.answers[side].score;
        score.map(|score| score as f32).ok_or_else(|| Error::Example { id: example.id.to_string(), problem: problem() })
    };
    let side = |side: usize| examples.iter().map(|example| score(example, side)).collect::<Result<Vec<_>>>();
    Ok([side(0)?, side(1)?])
}

/// Returns the win rates of chosen and of rejected answers, if every example has them.
fn win_rates_of(examples: &[&Example]) -> Option<[Vec<f32>; 2]> {
    let rates = |example: &&Example| {
        let Target::Pair { win_rates, .. } = example.target;
        win_rates
    };
    let rates: Vec<[f64; 2]> = examples.iter().map(rates).collect::<Option<_>>()?;
    Some([0, 1].map(|side| rates.iter().map(|rate| rate[side] as f32).collect()))
}

/// Lays out chosen answers, then rejected ones.
fn layout(examples: &[&Example], device: &Device) -> SequenceBatch {
    let side = |i: usize| examples.iter().map(move |e| (e.prompt_ids.as_slice(), e.answers[i].token_ids.as_slice()));
    SequenceBatch::new(&side(0).chain(side(1)).collect::<Vec<_>>(), device.torch())
}

impl PairTrainer {
    /// Trains `master` with `loss`, taking the device's permit for each micro-batch.
    pub fn new(master: Master, loss: PairLoss, device: Device) -> Self {
        Self { master, loss, device }
    }

    /// Computes the reference log-probs of each example once, in the given micro-batches.
    ///
    /// # Errors
    /// [`Error::Example`] for an example that is not a pair.
    pub fn prepare(&self, reference: &Llama, micro_batches: Vec<Vec<Example>>) -> Result<Vec<Vec<Prepared>>> {
        let _no_grad = tch::no_grad_guard();
        let mut prepared = Vec::with_capacity(micro_batches.len());
        for examples in micro_batches {
            examples.iter().try_for_each(|example| pair_of(example).map(drop))?;
            let _permit = self.device.acquire();
            let logps = layout(&examples.iter().collect::<Vec<_>>(), &self.device).logps(reference);
            let logps = Vec::<f32>::try_from(logps)?;
            let pairs = examples.len();
            let with_logps = |(i, example)| Prepared { example, ref_logps: [logps[i], logps[pairs + i]] };
            prepared.push(examples.into_iter().enumerate().map(with_logps).collect());
        }
        Ok(prepared)
    }

    /// Updates the policy once; the loss is the mean over all pairs of the step.
    ///
    /// # Errors
    /// [`Error::LossNotFinite`] naming the examples, or [`Error::GradientNotFinite`]; then nothing was updated.
    pub fn step(&mut self, micro_batches: &[Vec<Prepared>]) -> Result<StepMetrics> {
        let pairs: usize = micro_batches.iter().map(Vec::len).sum();
        if pairs == 0 {
            return Ok(StepMetrics::new());
        }
        let mut sums = Sums::default();
        for batch in micro_batches.iter().filter(|batch| !batch.is_empty()) {
            if let Err(error) = self.accumulate(batch, pairs as f64, &mut sums) {
                self.master.forget();
                return Err(error);
            }
        }
        let update = {
            let _permit = self.device.acquire();
            self.master.update()?
        };
        let mean = |(name, sum): (&&str, &f64)| ((*name).to_owned(), sum / sums.pairs);
        let mut metrics: StepMetrics = sums.values.iter().map(mean).collect();
        metrics.insert("grad_norm".into(), update.grad_norm);
        metrics.insert("learning_rate".into(), update.learning_rate);
        metrics.insert("pairs".into(), sums.pairs);
        metrics.insert("num_tokens".into(), sums.tokens);
        Ok(metrics)
    }

    fn accumulate(&mut self, batch: &[Prepared], total: f64, sums: &mut Sums) -> Result<()> {
        let _permit = self.device.acquire();
        let examples: Vec<&Example> = batch.iter().map(|prepared| &prepared.example).collect();
        let n = examples.len() as i64;
        let sequences = layout(&examples, &self.device);
        let logps = sequences.logps(&self.master.model()?); // [2n]
        let (chosen, rejected) = (logps.narrow(0, 0, n), logps.narrow(0, n, n));
        let column = |values: Vec<f32>| Tensor::from_slice(&values).to_device(self.device.torch());
        let reference = [0, 1].map(|side| column(batch.iter().map(|p| p.ref_logps[side]).collect()));
        let lengths =
            [0, 1].map(|side| column(examples.iter().map(|e| e.answers[side].token_ids.len() as f32).collect()));
        let labels: Vec<f64> = examples.iter().map(|example| pair_of(example)).collect::<Result<_>>()?;
        let p = column(labels.iter().map(|p| *p as f32).collect());
        let weight = column(examples.iter().map(|example| example.weight as f32).collect());
        let mut inputs = PairLogps::new(&chosen, &rejected)
            .with_reference(&reference[0], &reference[1])
            .with_tokens(&lengths[0], &lengths[1])
            .with_weight(&weight);
        if labels.iter().any(|p| *p != 1.0) {
            inputs = inputs.with_p(&p);
        }
        let scores = self.loss.needs_scores().then(|| scores_of(&examples)).transpose()?.map(|both| both.map(column));
        if let Some([better, worse]) = &scores {
            inputs = inputs.with_scores(better, worse);
        }
        let rates = win_rates_of(&examples).map(|both| both.map(column));
        if let Some([better, worse]) = &rates {
            inputs = inputs.with_win_rates(better, worse);
        }
        let from_reference = |example: &&Example| f32::from(u8::from(example.answers[0].player == Player::Reference));
        let from_reference = column(examples.iter().map(from_reference).collect());
        inputs = inputs.with_chosen_from_reference(&from_reference);
        let output = self.loss.compute(&inputs)?;
        let loss = output.per_pair.sum(Kind::Float) / total;
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            let examples = examples.iter().map(|example| example.id.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::LossNotFinite { step: self.master.optimizer.updates, value, examples });
        }
        loss.backward();
        sums.pairs += n as f64;
        sums.tokens += sequences.lengths().iter().sum::<usize>() as f64;
        record(sums, &output, [&chosen, &rejected], &reference);
        Ok(())
    }
}

/// Adds one micro-batch to the sums of the step; names and meanings are those of TRL's online DPO trainer.
fn record(sums: &mut Sums, output: &joust_losses::LossOutput, policy: [&Tensor; 2], reference: &[Tensor; 2]) {
    let [chosen, rejected] = policy.map(Tensor::detach);
    let kl = ((&chosen - &reference[0]) + (&rejected - &reference[1])) / 2.0;
    let entropy = -(&chosen + &rejected) / 2.0;
    let (better, worse) = (&output.chosen_rewards, &output.rejected_rewards);
    sums.add("loss", &output.per_pair.detach());
    sums.add("objective/kl", &kl);
    sums.add("objective/entropy", &entropy);
    sums.add("rewards/chosen", better);
    sums.add("rewards/rejected", worse);
    sums.add("rewards/margins", &(better - worse));
    sums.add("rewards/accuracies", &better.gt_tensor(worse).to_kind(Kind::Float));
    sums.add("logps/chosen", &chosen);
    sums.add("logps/rejected", &rejected);
}
