//! The prompts of a run: order by seed and epoch, and the held-out ones.

use std::collections::BTreeSet;

use joust_core::{
    Prompt,
    rng::{Stream, permutation},
};

use crate::{Error, Result};

/// How prompts are ordered and split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SetOptions {
    /// Seed of the run.
    pub seed: u64,
    /// Whether each epoch has an order of its own; else file order.
    pub shuffle: bool,
    /// Share of distinct prompts that is held out, in [0, 1).
    pub eval_fraction: f64,
}

/// Training prompts by position in the stream, and held-out prompts that share no text with them.
#[derive(Debug, Clone)]
pub struct PromptSet {
    train: Vec<(u64, Prompt)>,
    eval: Vec<(u64, Prompt)>,
    options: SetOptions,
}

/// Splits items so that equal keys stay on one side; `fraction` of the distinct keys goes to the second.
///
/// # Errors
/// [`Error::Split`] if a fraction above 0 leaves one side empty.
pub fn split_by<T>(items: Vec<T>, key: impl Fn(&T) -> String, fraction: f64, seed: u64) -> Result<(Vec<T>, Vec<T>)> {
    if fraction <= 0.0 {
        return Ok((items, Vec::new()));
    }
    let keys: Vec<String> = items.iter().map(&key).collect::<BTreeSet<_>>().into_iter().collect();
    let held = ((keys.len() as f64 * fraction).round() as usize).max(1);
    if held >= keys.len() {
        return Err(Error::Split { fraction, prompts: keys.len() });
    }
    let order = permutation(keys.len(), seed, Stream::Shuffle, u64::MAX >> 12);
    let held: BTreeSet<&String> = order[..held].iter().map(|index| &keys[*index]).collect();
    Ok(items.into_iter().partition(|item| !held.contains(&key(item))))
}

impl PromptSet {
    /// Splits and keeps `prompts` (row, prompt); `eval` given apart wins over the split.
    ///
    /// A prompt of an explicit held-out list is taken out of the training prompts.
    ///
    /// # Errors
    /// [`Error::Split`] if one side would be empty.
    pub fn new(prompts: Vec<(u64, Prompt)>, eval: Option<Vec<(u64, Prompt)>>, options: SetOptions) -> Result<Self> {
        let key = |(_, prompt): &(u64, Prompt)| prompt.display();
        let (train, eval) = match eval {
            None => split_by(prompts, key, options.eval_fraction, options.seed)?,
            Some(eval) => {
                let held: BTreeSet<String> = eval.iter().map(key).collect();
                let total = prompts.len();
                let train: Vec<_> = prompts.into_iter().filter(|prompt| !held.contains(&key(prompt))).collect();
                if train.is_empty() {
                    return Err(Error::Split { fraction: 1.0, prompts: total });
                }
                (train, eval)
            }
        };
        Ok(Self { train, eval, options })
    }

    /// Returns the number of training prompts.
    pub fn len(&self) -> usize {
        self.train.len()
    }

    /// Returns whether there is no training prompt.
    pub fn is_empty(&self) -> bool {
        self.train.is_empty()
    }

    /// Returns the training prompts in file order.
    pub fn train(&self) -> &[(u64, Prompt)] {
        &self.train
    }

    /// Returns the held-out prompts in file order.
    pub fn eval(&self) -> &[(u64, Prompt)] {
        &self.eval
    }

    /// Returns the order of an epoch: indices into the training prompts.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        if self.options.shuffle {
            permutation(self.train.len(), self.options.seed, Stream::Shuffle, epoch)
        } else {
            (0..self.train.len()).collect()
        }
    }
}
