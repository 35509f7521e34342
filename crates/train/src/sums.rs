//! Counts and sums of a step, over all ranks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{Prepared, Ranks, Result, StepMetrics};

/// Counts over the whole step, which its losses are means over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) examples: f64,
    pub(crate) answers: f64,
    pub(crate) tokens: f64,
    /// Micro-batches of the rank that has most.
    pub(crate) rounds: usize,
}

impl Totals {
    /// Counts over all ranks.
    pub(crate) fn of<B: AsRef<[Prepared]>>(micro_batches: &[B], ranks: &Ranks) -> Result<Self> {
        let answers = || {
            let examples = micro_batches.iter().flat_map(AsRef::as_ref);
            examples.flat_map(|prepared: &Prepared| &prepared.example.answers)
        };
        let own = [
            micro_batches.iter().map(|batch| batch.as_ref().len()).sum::<usize>(),
            answers().count(),
            answers().map(|answer| answer.token_ids.len()).sum::<usize>(),
            micro_batches.iter().filter(|batch| !batch.as_ref().is_empty()).count(),
        ];
        let all = ranks.gather(own)?;
        let total = |which: usize| all.iter().map(|own| own[which]).sum::<usize>() as f64;
        let rounds = all.iter().map(|own| own[3]).max().unwrap_or_default();
        Ok(Self { examples: total(0), answers: total(1), tokens: total(2), rounds })
    }
}

/// Sums over a step of what becomes a mean at its end.
#[derive(Debug, Default)]
pub(crate) struct Sums(BTreeMap<String, Sum>);

/// The sum of values of one name, and how many they are; of what adds up to a whole there is no count.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Sum {
    sum: f64,
    count: Option<f64>,
}

impl Sums {
    /// Adds values that become a mean over all values of this name.
    pub(crate) fn add(&mut self, name: &str, values: &Tensor) {
        self.enter(name, Sum { sum: values.sum(Kind::Double).double_value(&[]), count: Some(values.numel() as f64) });
    }

    /// Adds a share of what the whole step sums up to.
    pub(crate) fn add_part(&mut self, name: &str, part: f64) {
        self.enter(name, Sum { sum: part, count: None });
    }

    fn enter(&mut self, name: &str, more: Sum) {
        let known = self.0.entry(name.to_owned()).or_default();
        known.sum += more.sum;
        known.count = more.count.map(|count| known.count.unwrap_or_default() + count);
    }

    /// Returns the means over all ranks.
    pub(crate) fn means(self, ranks: &Ranks) -> Result<StepMetrics> {
        let mut all = Self::default();
        for (name, sum) in ranks.gather(self.0)?.into_iter().flatten() {
            all.enter(&name, sum);
        }
        // A mean over nothing, as of the better answers where all tie, is 0.
        let mean = |(name, Sum { sum, count }): (String, Sum)| (name, sum / count.map_or(1.0, |count| count.max(1.0)));
        Ok(all.0.into_iter().map(mean).collect())
    }
}
