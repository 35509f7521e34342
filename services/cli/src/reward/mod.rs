//! `joust train-reward`: a reward model from preference pairs by the Bradley-Terry loss, from rated answers by regression, or from heads that need no
//! training.

mod heads;
mod legend;
mod pairs;
mod pal;
mod ratings;

use std::process::ExitCode;

use anyhow::{Context, ensure};
use joust_config::{DataFormat, RewardFile, load};
use joust_core::{
    rng::{Stream, permutation},
    scratch::check_target,
};
use joust_data::{Format, Skipped, Tokenizer};
use joust_model::{Dtype, Head, ModelConfig, Weights, load as load_model, publish_edited};
use joust_train::{Master, Update};

use crate::{args::TrainArgs, device, optim, padding, sft::report_eos};

/// Runs the verb.
///
/// # Errors
/// Bad input, by name; an output folder that exists is left as it was.
pub fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let file = load::<RewardFile>(&args.file, &args.overrides)?.run;
    let out = &file.output.dir;
    ensure!(!out.exists(), "output folder {} exists; remove it or set output.dir", out.display());
    check_target(out).with_context(|| format!("output.dir = {} cannot be made", out.display()))?;
    optim::set_threads(file.learner.optim.threads);
    let tokenizer = Tokenizer::open(&file.model.base)?;
    report_eos(&tokenizer);
    let mut people = None;
    let mut know = |(config, weights, known)| {
        people = Some(known);
        (config, weights)
    };
    let (config, weights) = match &file.loss {
        loss if loss.components > 0 => heads::decompose(&file, &tokenizer)?,
        loss if loss.combine => heads::combine(&file, &tokenizer)?,
        loss if loss.prototypes > 0 => know(pal::train(&file, &tokenizer)?),
        loss if loss.new_users => know(pal::welcome(&file, &tokenizer)?),
        loss => {
            let train = if loss.attributes.is_empty() { pairs::train } else { ratings::train };
            let (config, weights) = start(&file, &tokenizer)?;
            let master = train(&file, &tokenizer, (&config, &weights))?;
            (config, master.weights)
        }
    };
    let stored = config.with_dtype(crate::model::dtype(file.model.dtype));
    publish_edited(out, &file.model.base, (&stored, &weights), |staging| {
        padding::name_in(staging, &tokenizer)?;
        people.as_ref().map_or(Ok(()), |people| people.write(staging))
    })?;
    println!("reward model written to {} ({} parameters)", out.display(), stored.parameters());
    Ok(ExitCode::SUCCESS)
}

/// Opens the base, to be computed with in float32.
fn open(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<(ModelConfig, Weights)> {
    let (config, weights) = load_model(&file.model.base)?;
    tokenizer.check_embedding(config.vocab_size as usize)?;
    let config = match padding::id(tokenizer) {
        Some(id) => config.with_pad(id),
        None => config,
    };
    Ok((config.with_dtype(Dtype::Float32), weights.to_device(device::torch()).to_kind(tch::Kind::Float)))
}

/// Opens the base; a language model gets a head that starts at zero, so that the first scores are equal.
fn start(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<(ModelConfig, Weights)> {
    let (config, weights) = open(file, tokenizer)?;
    let attributes = &file.loss.attributes;
    if config.head == Head::CausalLm {
        return Ok(crate::model::rated(config, &weights, padding::id(tokenizer), attributes));
    }
    let (base, labels) = (file.model.base.display(), config.labels.join(", "));
    if attributes.is_empty() {
        ensure!(
            config.labels.len() == 1,
            "{base} gives {labels}; write them as loss.attributes, or give another model.base"
        );
    } else {
        let wanted = attributes.join(", ");
        ensure!(
            config.labels == *attributes,
            "{base} gives {labels}, loss.attributes are {wanted}; write the same, in order"
        );
    }
    Ok((config, weights))
}

/// Translates the file's word for the form of its rows.
fn format(file: &RewardFile) -> Format {
    match file.data.format {
        DataFormat::Trl => Format::Trl,
        DataFormat::Ultrafeedback => Format::UltraFeedback,
        DataFormat::Hh => Format::Hh,
        DataFormat::Helpsteer => Format::HelpSteer,
        DataFormat::Oasst => Format::Oasst,
        DataFormat::CodeUltrafeedback => Format::CodeUltraFeedback,
    }
}

fn report(skipped: Skipped) {
    for (reason, count) in skipped {
        eprintln!("skipped {count} rows: {reason}");
    }
}

fn report_held(pairs: usize, accuracy: f64) {
    eprintln!("held_out={pairs} accuracy={accuracy:.3}");
}

/// Returns the updates of a training on so many rows.
fn steps_of(file: &RewardFile, rows: usize) -> u64 {
    let per_epoch = rows.div_ceil((file.learner.batch_size as usize).min(rows)) as u64;
    file.learner.optim.steps.unwrap_or(per_epoch * u64::from(file.learner.epochs)).max(1)
}

/// Passes over the rows in batches; `step` updates on the micro-batches of one and says how it went.
fn train_loop<T>(
    file: &RewardFile,
    (config, weights): (&ModelConfig, &Weights),
    train: &[T],
    step: impl Fn(&mut Master, &[Vec<&T>]) -> anyhow::Result<(String, Update)>,
) -> anyhow::Result<Master> {
    let batch_size = (file.learner.batch_size as usize).min(train.len());
    let per_epoch = train.len().div_ceil(batch_size) as u64;
    let steps = steps_of(file, train.len());
    eprintln!("rows={} batch_size={batch_size} steps_per_epoch={per_epoch} steps={steps}", train.len());
    let mut master =
        Master::new(config, weights, optim::settings(file.learner.learning_rate, &file.learner.optim, steps));
    let micro = file.learner.micro_batch as usize;
    let mut order = Vec::new();
    for done in 0..steps {
        if done % per_epoch == 0 {
            order = permutation(train.len(), file.seed, Stream::Shuffle, done / per_epoch);
        }
        let at = (done % per_epoch) as usize * batch_size;
        let end = (at + batch_size).min(train.len());
        let rows: Vec<&T> = order[at..end].iter().map(|i| &train[*i]).collect();
        let cut: Vec<Vec<&T>> = rows.chunks(micro).map(<[_]>::to_vec).collect();
        let (told, update) = step(&mut master, &cut)?;
        if (done + 1) % 20 == 0 || done + 1 == steps {
            eprintln!("step={}/{steps} {told} lr={:.2e}", done + 1, update.learning_rate);
        }
    }
    Ok(master)
}
