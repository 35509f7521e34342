//! What only some runs need of a whole step before the update: log-probs of its answers and of answers to other prompts, and which pairs
//! are kept.

use joust_model::{Llama, SequenceBatch};
use joust_pairs::{Keep, KeepBy, ches};
use tch::Kind;

use crate::{Foreign, Known, Prepared, Result, Trainer, trainer::layout};

impl Trainer {
    /// Gives each example the answers of the next prompt of the step, the last one those of the first.
    pub(crate) fn exchange(&self, reference: &Llama, step: &mut [Vec<Prepared>]) -> Result<()> {
        let mut answers: Vec<Vec<Vec<u32>>> = step
            .iter()
            .flatten()
            .map(|prepared| prepared.example.answers.iter().map(|answer| answer.token_ids.clone()).collect())
            .collect();
        let shares = self.ranks().gather((answers.len(), answers.first().cloned()))?;
        if shares.iter().map(|(count, _)| count).sum::<usize>() < 2 {
            return Ok(()); // said when the average is taken
        }
        let after = (1..=shares.len()).map(|k| &shares[(self.ranks().rank() + k) % shares.len()]);
        answers.extend(after.filter_map(|(_, first)| first.clone()).take(1));
        let answers = answers.into_iter().skip(1);
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

    /// Drops the pairs of a step that are not kept.
    pub(crate) fn retain(&self, keep: Keep, step: Vec<Vec<Prepared>>) -> Result<Vec<Vec<Prepared>>> {
        let mut values = Vec::new();
        for batch in step.iter().filter(|batch| !batch.is_empty()) {
            values.extend(self.rank(keep.by, batch)?);
        }
        let (values, mine) = self.ranks().join(values)?;
        let mut kept = keep.choose(&values).into_iter().skip(mine.start);
        let mut stays = |prepared: Prepared| kept.next().unwrap_or_default().then_some(prepared);
        Ok(step.into_iter().map(|batch| batch.into_iter().filter_map(&mut stays).collect()).collect())
    }

    /// Computes what the pairs of a micro-batch are ranked by.
    fn rank(&self, by: KeepBy, batch: &[Prepared]) -> Result<Vec<f64>> {
        let sum = |known: &Known| known.reference.iter().map(|value| f64::from(*value)).sum::<f64>();
        let tokens = |p: &Prepared| [0, 1].map(|side: usize| p.example.answers[side].token_ids.len().max(1));
        Ok(match by {
            KeepBy::Clarity => {
                let gap = |p: &Prepared| {
                    let [chosen, rejected] = tokens(p).map(|tokens| tokens as f64);
                    sum(&p.known[0]) / chosen - sum(&p.known[1]) / rejected
                };
                batch.iter().map(gap).collect()
            }
            KeepBy::Margin => {
                let policy = self.own_sums(&self.master.model()?, batch)?;
                let margin =
                    |(p, own): (&Prepared, &[f64])| ((own[0] - sum(&p.known[0])) - (own[1] - sum(&p.known[1]))).abs();
                batch.iter().zip(policy.chunks_exact(2)).map(margin).collect()
            }
            KeepBy::Ches => {
                let _no_grad = tch::no_grad_guard();
                let _permit = self.device.acquire();
                let sequences = layout(batch.iter().map(|prepared| &prepared.example), &self.device);
                let sums = sequences.hidden_sums(&self.master.model()?);
                let sums = sums.view([-1, 2, sums.size()[1]]); // [pairs, 2, H]
                let dot = |side: i64| {
                    let products = sums.select(1, 0) * sums.select(1, side);
                    Vec::<f64>::try_from(products.sum_dim_intlist(1i64, false, Kind::Double))
                };
                let products = dot(1)?.into_iter().zip(dot(0)?);
                batch.iter().zip(products).map(|(p, (other, own))| ches(other, own, tokens(p))).collect()
            }
        })
    }
}
