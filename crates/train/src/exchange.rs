//! Log-probs that only some objectives need: of a whole step's answers before the update, and of answers to other prompts.

use joust_model::Llama;
use tch::Kind;

use crate::{Foreign, Prepared, Result, SequenceBatch, Trainer, trainer::layout};

impl Trainer {
    /// Gives each example the answers of the next prompt of the step, the last one those of the first.
    pub(crate) fn exchange(&self, reference: &Llama, step: &mut [Vec<Prepared>]) -> Result<()> {
        let mut answers: Vec<Vec<Vec<u32>>> = step
            .iter()
            .flatten()
            .map(|prepared| prepared.example.answers.iter().map(|answer| answer.token_ids.clone()).collect())
            .collect();
        if answers.len() < 2 {
            return Ok(()); // said when the average is taken
        }
        answers.rotate_left(1);
        for (prepared, answers) in step.iter_mut().flatten().zip(answers) {
            let foreign = |token_ids| Foreign { token_ids, reference: 0.0 };
            prepared.foreign = answers.into_iter().map(foreign).collect();
        }
        for batch in step.iter_mut().filter(|batch| !batch.is_empty()) {
            let sums = self.foreign_sums(reference, batch)?;
            for (foreign, sum) in batch.iter_mut().flat_map(|prepared| &mut prepared.foreign).zip(sums) {
                foreign.reference = sum as f32;
            }
        }
        Ok(())
    }

    /// Computes log π of the foreign answers of a micro-batch.
    pub(crate) fn foreign_sums<'b>(&self, model: &Llama, batch: &'b [Prepared]) -> Result<Vec<f64>> {
        let _no_grad = tch::no_grad_guard();
        let _permit = self.device.acquire();
        let own = |p: &'b Prepared| p.foreign.iter().map(|f| (p.example.prompt_ids.as_slice(), f.token_ids.as_slice()));
        let sequences: Vec<(&[u32], &[u32])> = batch.iter().flat_map(own).collect();
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let logps = SequenceBatch::new(&sequences, self.device.torch()).logps(model);
        Ok(Vec::<f64>::try_from(logps.to_kind(Kind::Double))?)
    }

    /// Computes log π of the answers of a micro-batch.
    pub(crate) fn own_sums(&self, model: &Llama, batch: &[Prepared]) -> Result<Vec<f64>> {
        let _no_grad = tch::no_grad_guard();
        let _permit = self.device.acquire();
        let logps = layout(batch.iter().map(|prepared| &prepared.example), &self.device).logps(model);
        Ok(Vec::<f64>::try_from(logps.to_kind(Kind::Double))?)
    }
}
