//! Training on preference pairs: Bradley-Terry.

use anyhow::ensure;
use joust_config::{MarginUse, RewardFile};
use joust_data::{Preference, Tokenizer, read_preferences, split_by};
use joust_losses::Margin;
use joust_model::{ModelConfig, Weights, sequence_scores};
use joust_train::{Master, RewardLoss, RewardPair, reward_step};

use super::{legend, report, train_loop};
use crate::{device, sft::on_error};

/// A pair with what it is split by.
pub(super) struct Pair {
    /// Its answered prompts.
    pub(super) sequences: RewardPair,
    /// Whose it is, where the data says so.
    pub(super) user: Option<String>,
    prompt: String,
}

/// Reads the pairs, to train on and held out.
pub(super) fn read(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<(Vec<Pair>, Vec<Pair>)> {
    let (preferences, skipped) = read_preferences(&file.data.train, on_error(file.data.on_error))?;
    report(skipped);
    let pairs = tokenize(tokenizer, &preferences, file)?;
    Ok(split_by(pairs, |pair| pair.prompt.clone(), file.data.eval_fraction, file.seed)?)
}

/// Reads the pairs, trains, and measures on those held out.
pub(super) fn train(
    file: &RewardFile,
    tokenizer: &Tokenizer,
    start: (&ModelConfig, &Weights),
) -> anyhow::Result<Master> {
    let (mut train, held) = read(file, tokenizer)?;
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

/// Encodes what fits `data.max_length`.
pub(super) fn tokenize(
    tokenizer: &Tokenizer,
    preferences: &[Preference],
    file: &RewardFile,
) -> anyhow::Result<Vec<Pair>> {
    let (max_length, scaled) = (file.data.max_length as usize, file.loss.margin == MarginUse::Scale);
    let mut pairs = Vec::with_capacity(preferences.len());
    let (mut long, mut equal) = (0, 0);
    for preference in preferences {
        let chosen = tokenizer.encode_answered(&preference.prompt, &preference.chosen)?;
        let rejected = tokenizer.encode_answered(&preference.prompt, &preference.rejected)?;
        if chosen.len().max(rejected.len()) > max_length {
            long += 1;
            continue;
        }
        let margin = preference.margin.unwrap_or(if scaled { 1.0 } else { 0.0 });
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
    if long > 0 {
        eprintln!("left out {long} pairs longer than data.max_length = {max_length} tokens");
    }
    ensure!(!pairs.is_empty(), "no pair fits data.max_length = {max_length} tokens; raise it");
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
