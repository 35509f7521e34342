//! `joust train-reward`: a reward model from preference pairs, by the Bradley-Terry loss.

use std::process::ExitCode;

use anyhow::ensure;
use joust_config::{MarginUse, RewardFile, load};
use joust_core::rng::{Stream, permutation};
use joust_data::{Preference, Tokenizer, read_preferences, split_by};
use joust_losses::Margin;
use joust_model::{Device, Dtype, Head, ModelConfig, Weights, load as load_model, publish_folder};
use joust_train::{Master, RewardLoss, RewardPair, reward_step, sequence_scores};

use crate::{args::TrainArgs, optim, sft::on_error};

/// A pair with what it is split by.
struct Pair {
    sequences: RewardPair,
    prompt: String,
}

/// Runs the verb.
///
/// # Errors
/// Bad input, by name; an output folder that exists is left as it was.
pub fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let file = load::<RewardFile>(&args.file, &args.overrides)?.run;
    let out = &file.output.dir;
    ensure!(!out.exists(), "output folder {} exists; remove it or set output.dir", out.display());
    optim::set_threads(file.learner.optim.threads);
    let (preferences, skipped) = read_preferences(&file.data.train, on_error(file.data.on_error))?;
    for (reason, count) in skipped {
        eprintln!("skipped {count} rows: {reason}");
    }
    let tokenizer = Tokenizer::open(&file.model.base)?;
    let (config, weights) = start(&file, &tokenizer)?;
    let pairs = tokenize(&tokenizer, &preferences, &file)?;
    let (train, held) = split_by(pairs, |pair| pair.prompt.clone(), file.data.eval_fraction, file.seed)?;
    let master = train_loop(&file, &config, &weights, &train)?;
    if !held.is_empty() {
        let (accuracy, device) = (accuracy(&master, &held)?, Device::cpu());
        eprintln!("held_out={} accuracy={accuracy:.3} device={:?}", held.len(), device.torch());
    }
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    let stored = config.with_dtype(crate::model::dtype(file.model.dtype));
    publish_folder(out, &file.model.base, &stored, &master.weights)?;
    println!("reward model written to {} ({} parameters)", out.display(), stored.parameters());
    Ok(ExitCode::SUCCESS)
}

/// Opens the base; a language model gets a scalar head that starts at zero, so that the first scores are equal.
fn start(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<(ModelConfig, Weights)> {
    let (config, weights) = load_model(&file.model.base)?;
    tokenizer.check_embedding(config.vocab_size as usize)?;
    let config = config.with_dtype(Dtype::Float32);
    if config.head == Head::Score {
        return Ok((config, weights));
    }
    Ok(crate::model::scored(config, &weights, tokenizer.pad_id()))
}

fn tokenize(tokenizer: &Tokenizer, preferences: &[Preference], file: &RewardFile) -> anyhow::Result<Vec<Pair>> {
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
        pairs.push(Pair { sequences, prompt: preference.prompt.display() });
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

fn train_loop(file: &RewardFile, config: &ModelConfig, weights: &Weights, train: &[Pair]) -> anyhow::Result<Master> {
    let batch_size = (file.learner.batch_size as usize).min(train.len());
    let per_epoch = (train.len() / batch_size) as u64;
    let steps = file.learner.optim.steps.unwrap_or(per_epoch * u64::from(file.learner.epochs)).max(1);
    let settings = optim::settings(file.learner.learning_rate, &file.learner.optim, steps);
    let mut master = Master::new(config, weights, settings);
    let margin = match file.loss.margin {
        MarginUse::None => None,
        MarginUse::Subtract => Some(Margin::Subtract),
        MarginUse::Scale => Some(Margin::Scale),
    };
    let loss = RewardLoss { center_coefficient: file.loss.center_rewards_coefficient, margin };
    let micro = file.learner.micro_batch as usize;
    let device = Device::cpu();
    let mut order = Vec::new();
    for step in 0..steps {
        if step % per_epoch == 0 {
            order = permutation(train.len(), file.seed, Stream::Shuffle, step / per_epoch);
        }
        let at = (step % per_epoch) as usize * batch_size;
        let pairs: Vec<&RewardPair> = order[at..at + batch_size].iter().map(|i| &train[*i].sequences).collect();
        let cut: Vec<Vec<&RewardPair>> = pairs.chunks(micro).map(<[_]>::to_vec).collect();
        let (value, accuracy, update) = reward_step(&mut master, &cut, &loss, &device)?;
        if (step + 1) % 20 == 0 || step + 1 == steps {
            let lr = update.learning_rate;
            eprintln!("step={}/{steps} loss={value:.4} accuracy={accuracy:.3} lr={lr:.2e}", step + 1);
        }
    }
    Ok(master)
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
