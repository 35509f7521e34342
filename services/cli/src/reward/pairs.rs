//! Training on preference pairs: Bradley-Terry.

use anyhow::ensure;
use joust_config::{MarginUse, RewardFile};
use joust_data::{Margins, Preference, PreferenceOptions, Tokenizer, read_preferences, split_by};
use joust_losses::Margin;
use joust_model::{ModelConfig, Weights, sequence_scores};
use joust_train::{Master, RewardLoss, RewardPair, reward_step};

use super::{format, legend, report, train_loop};
use crate::{
    device,
    sft::{Fits, on_error},
};

/// A pair with what it is split by.
pub(super) struct Pair {
    /// Its answered prompts.
    pub(super) sequences: RewardPair,
    /// Whose it is, where the data says so.
    pub(super) user: Option<String>,
    prompt: String,
}

/// Reads the pairs, to train on and held out.
pub(super) fn read(
    file: &RewardFile,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
) -> anyhow::Result<(Vec<Pair>, Vec<Pair>)> {
    let margins = match file.loss.margin {
        MarginUse::None | MarginUse::Legend => Margins::Ignored,
        MarginUse::Subtract => Margins::Needed,
        MarginUse::Scale => Margins::AtLeastZero,
    };
    let options = PreferenceOptions { format: format(file), on_error: on_error(file.data.on_error), margins };
    let (preferences, skipped) = read_preferences(&file.data.train, &options)?;
    report(skipped);
    let unmarked = margins != Margins::Ignored && preferences.iter().any(|preference| preference.margin.is_none());
    ensure!(!unmarked, "loss.margin reads margins, which rows of data.format = \"hh\" do not have");
    let pairs = tokenize(tokenizer, &preferences, (file, config))?;
    Ok(split_by(pairs, |pair| pair.prompt.clone(), file.data.eval_fraction, file.seed)?)
}

/// Reads the pairs, trains, and measures on those held out.
pub(super) fn train(
    file: &RewardFile,
    tokenizer: &Tokenizer,
    start: (&ModelConfig, &Weights),
) -> anyhow::Result<Master> {
    let (mut train, held) = read(file, tokenizer, start.0)?;
    legend::annotate(file, tokenizer, start, &mut train)?;
    let margin = match file.loss.margin {
        MarginUse::None => None,
        MarginUse::Subtract | MarginUse::Legend => Some(Margin::Subtract),
        MarginUse::Scale => Some(Margin::Scale),
    };
    let loss = RewardLoss { center_coefficient: file.loss.center_rewards_coefficient, margin };
    let device = device::chosen();
    let master = train_loop(file, start, &train, |master, batches| {
        let sequences: Vec<Vec<&RewardPair>> =
            batches.iter().map(|batch| batch.iter().map(|pair| &pair.sequences).collect()).collect();
        let (value, accuracy, update) = reward_step(master, &sequences, &loss, &device)?;
        Ok((format!("loss={value:.4} accuracy={accuracy:.3}"), update))
    })?;
    if !held.is_empty() {
        let (accuracy, device) = (accuracy(&master, &held)?, device::chosen());
        eprintln!("held_out={} accuracy={accuracy:.3} device={:?}", held.len(), device.torch());
    }
    Ok(master)
}

/// Encodes what fits `data.max_length` and the model's context.
pub(super) fn tokenize(
    tokenizer: &Tokenizer,
    preferences: &[Preference],
    (file, config): (&RewardFile, &ModelConfig),
) -> anyhow::Result<Vec<Pair>> {
    let scaled = file.loss.margin == MarginUse::Scale;
    let mut fits = Fits::new(file.data.max_length, config.max_position_embeddings);
    let mut pairs = Vec::with_capacity(preferences.len());
    let mut equal = 0;
    for preference in preferences {
        let chosen = tokenizer.encode_answered(&preference.prompt, &preference.chosen)?;
        let rejected = tokenizer.encode_answered(&preference.prompt, &preference.rejected)?;
        if !fits.check(if chosen.is_empty() { 0 } else { chosen.len().max(rejected.len()) }) {
            continue;
        }
        let margin = preference.margin.unwrap_or_default();
        if scaled && margin == 0.0 {
            equal += 1;
            continue;
        }
        let sequences = RewardPair { chosen, rejected, margin };
        pairs.push(Pair { sequences, user: preference.user.clone(), prompt: preference.prompt.display() });
    }
    if equal > 0 {
        eprintln!("left out {equal} pairs whose margin of 0 would scale them away");
    }
    fits.report("pairs");
    ensure!(!pairs.is_empty(), fits.none("pair"));
    Ok(pairs)
}

/// Computes the share of held-out pairs in which chosen scores higher.
fn accuracy(master: &Master, held: &[Pair]) -> anyhow::Result<f64> {
    let _no_grad = tch::no_grad_guard();
    let model = master.model()?;
    let mut right = 0.0;
    for pairs in held.chunks(32) {
        let scores = |side: fn(&RewardPair) -> &Vec<u32>| {
            sequence_scores(&model, &pairs.iter().map(|pair| side(&pair.sequences).clone()).collect::<Vec<_>>())
        };
        let (chosen, rejected) = (scores(|pair| &pair.chosen), scores(|pair| &pair.rejected));
        right += chosen.gt_tensor(&rejected).to_kind(tch::Kind::Float).sum(tch::Kind::Float).double_value(&[]);
    }
    Ok(right / held.len() as f64)
}
