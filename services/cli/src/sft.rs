//! `joust sft`: makes or adapts a base model by supervised fine-tuning.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, bail, ensure};
use joust_config::{LossOn as ConfigLossOn, NewModel, SftFile, run::OnError as ConfigOnError};
use joust_core::{
    rng::{Stream, permutation},
    scratch::{Scratch, check_target},
};
use joust_data::{LossOn, OnError, Supervised, Tokenizer, read_supervised, read_texts, split_by, train_bpe};
use joust_model::{Device, Head, ModelConfig, Weights, publish_folder};
use joust_train::{Master, SftSequence, masked_nll, masked_sft_step};
use serde_json::{Value, json};

use crate::{args::TrainArgs, device, model, optim};

/// An example as ids.
struct Sample {
    ids: Vec<u32>,
    /// Which ids are learned; the first never is.
    learned: Vec<bool>,
    /// Where the first that is learned stands.
    start: usize,
    /// What comes before the answer, by which examples are held out.
    asked: String,
}

/// What is trained, and the folder with its tokenizer files.
struct Start {
    config: ModelConfig,
    weights: Weights,
    tokenizer: Tokenizer,
    tokenizer_folder: std::path::PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// Bad input, by name; an output folder that exists is left as it was.
pub fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let file = joust_config::load::<SftFile>(&args.file, &args.overrides)?.run;
    let out = &file.output.dir;
    ensure!(!out.exists(), "output folder {} exists; remove it or set output.dir", out.display());
    check_target(out).with_context(|| format!("output.dir = {} cannot be made", out.display()))?;
    optim::set_threads(file.learner.optim.threads);
    let (examples, skipped) = read_supervised(&file.data.train, on_error(file.data.on_error))?;
    for (reason, count) in skipped {
        eprintln!("skipped {count} rows: {reason}");
    }
    let work = Scratch::anywhere().context("failed to make a temporary folder")?;
    let start = start(&file, &examples, work.path())?;
    let samples = tokenize(&file, &start, &examples)?;
    let (train, held) = split_by(samples, |sample| sample.asked.clone(), file.data.eval_fraction, file.seed)?;
    let master = train_loop(&file, &start, &train, &held)?;
    let config = start.config.with_dtype(model::dtype(file.model.dtype));
    publish_folder(out, &start.tokenizer_folder, &config, &master.weights)?;
    println!("model written to {} ({} parameters)", out.display(), config.parameters());
    Ok(ExitCode::SUCCESS)
}

/// Translates the file's word for what a bad row does.
pub fn on_error(on_error: ConfigOnError) -> OnError {
    match on_error {
        ConfigOnError::Fail => OnError::Fail,
        ConfigOnError::Skip => OnError::Skip,
    }
}

fn start(file: &SftFile, examples: &[Supervised], work: &Path) -> anyhow::Result<Start> {
    if let Some(base) = &file.model.base {
        let model::LanguageModel { config, weights, words, .. } = model::open(base, Head::CausalLm, None)?.merged()?;
        return Ok(Start { config, weights, tokenizer: Tokenizer::open(&words)?, tokenizer_folder: words });
    }
    let (Some(new), Some(spec)) = (&file.model.new, &file.tokenizer) else {
        bail!("write model.base, or model.new with tokenizer.vocab_size");
    };
    let vocab = train_bpe(&read_texts(examples), spec.vocab_size as usize, work)?;
    let path = work.join("config.json");
    let Value::Object(raw) = new_config(new, vocab) else { unreachable!("json! of braces is an object") };
    let config = ModelConfig::parse(&path, raw)?;
    fs::write(&path, serde_json::to_string_pretty(&config.raw)?)
        .with_context(|| format!("failed to write {}", path.display()))?;
    let weights = Weights::random(&config, file.seed).to_device(device::torch());
    Ok(Start { config, weights, tokenizer: Tokenizer::open(work)?, tokenizer_folder: work.into() })
}

/// Writes the keys that `transformers` of today and of before read; the ids are those of [`train_bpe`].
fn new_config(new: &NewModel, vocab: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": new.hidden_size, "intermediate_size": new.intermediate_size,
        "num_hidden_layers": new.num_hidden_layers, "num_attention_heads": new.num_attention_heads,
        "num_key_value_heads": new.num_key_value_heads, "max_position_embeddings": new.max_position_embeddings,
        "vocab_size": vocab, "tie_word_embeddings": new.tie_word_embeddings, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": new.rope_theta,
        "rope_parameters": { "rope_type": "default", "rope_theta": new.rope_theta },
        "attention_bias": false, "mlp_bias": false, "initializer_range": 0.02,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32",
    })
}

/// Encodes what fits `data.max_length` and the model's context.
fn tokenize(file: &SftFile, start: &Start, examples: &[Supervised]) -> anyhow::Result<Vec<Sample>> {
    let loss_on = match file.data.loss_on {
        ConfigLossOn::All => LossOn::All,
        ConfigLossOn::Last => LossOn::Last,
    };
    let mut fits = Fits::new(file.data.max_length, start.config.max_position_embeddings);
    let mut samples = Vec::with_capacity(examples.len());
    for example in examples {
        let sequence = start.tokenizer.encode_supervised(example, loss_on)?;
        let Some(first) = sequence.learned.iter().position(|learned| *learned) else {
            fits.empty += 1;
            continue;
        };
        if fits.check(sequence.ids.len()) {
            samples.push(Sample { start: first, ids: sequence.ids, learned: sequence.learned, asked: example.asked() });
        }
    }
    fits.report("examples");
    report_eos(&start.tokenizer);
    ensure!(!samples.is_empty(), fits.none("example"));
    Ok(samples)
}

/// Counts sequences that do not fit.
pub(crate) struct Fits {
    max_length: usize,
    context: usize,
    long: usize,
    beyond: usize,
    empty: usize,
}

impl Fits {
    /// Takes `data.max_length` and the model's context, in tokens.
    pub(crate) fn new(max_length: u32, context: i64) -> Self {
        let context = usize::try_from(context).unwrap_or_default();
        Self { max_length: max_length as usize, context, long: 0, beyond: 0, empty: 0 }
    }

    /// Returns whether a sequence of so many tokens fits, and counts it if it does not.
    pub(crate) fn check(&mut self, tokens: usize) -> bool {
        match tokens {
            0 => self.empty += 1,
            tokens if tokens > self.max_length => self.long += 1,
            tokens if tokens > self.context => self.beyond += 1,
            _ => return true,
        }
        false
    }

    /// Says that nothing fits.
    pub(crate) fn none(&self, what: &str) -> String {
        let Self { max_length, context, .. } = self;
        match max_length <= context {
            true => format!("no {what} fits data.max_length = {max_length} tokens; raise it"),
            false => format!("no {what} fits the model's context of {context} tokens; shorten the rows"),
        }
    }

    /// Prints what was left out.
    pub(crate) fn report(&self, what: &str) {
        let Self { max_length, context, .. } = self;
        if self.empty > 0 {
            eprintln!("left out {} {what} without a token to learn", self.empty);
        }
        if self.long > 0 {
            eprintln!("left out {} {what} longer than data.max_length = {max_length} tokens", self.long);
        }
        if self.beyond > 0 {
            eprintln!("left out {} {what} longer than the model's context of {context} tokens", self.beyond);
        }
    }
}

/// Says that texts have no end, where the model's files name none.
pub(crate) fn report_eos(tokenizer: &Tokenizer) {
    if tokenizer.eos_id().is_none() {
        eprintln!("no file of the model names an EOS token: answers of text are trained without an end");
    }
}

fn train_loop(file: &SftFile, start: &Start, train: &[Sample], held: &[Sample]) -> anyhow::Result<Master> {
    let batch_size = (file.learner.batch_size as usize).min(train.len());
    let per_epoch = train.len().div_ceil(batch_size) as u64;
    let steps = file.learner.optim.steps.unwrap_or(per_epoch * u64::from(file.learner.epochs)).max(1);
    eprintln!("rows={} batch_size={batch_size} steps_per_epoch={per_epoch} steps={steps}", train.len());
    let config = start.config.clone().with_dtype(joust_model::Dtype::Float32);
    let settings = optim::settings(file.learner.learning_rate, &file.learner.optim, steps);
    let mut master = Master::new(&config, &start.weights, settings);
    let (device, micro) = (device::chosen(), file.learner.micro_batch as usize);
    let began = std::time::Instant::now();
    let mut batches = Vec::new();
    for step in 0..steps {
        if step % per_epoch == 0 {
            batches = epoch_batches(train, file.seed, step / per_epoch, batch_size);
        }
        let batch: Vec<SftSequence<'_>> =
            batches[(step % per_epoch) as usize].iter().map(|i| view(&train[*i])).collect();
        let (loss, update) = masked_sft_step(&mut master, &batch, micro, &device)?;
        if (step + 1) % 50 == 0 || step + 1 == steps {
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("step={}/{steps} loss={loss:.4} lr={:.2e} seconds={seconds:.0}", step + 1, update.learning_rate);
        }
    }
    if !held.is_empty() {
        let perplexity = perplexity(&master, held, micro, &device)?;
        eprintln!("held_out={} perplexity={perplexity:.3}", held.len());
    }
    Ok(master)
}

/// Shuffles an epoch into batches, which together hold each row once; within stretches of some batches rows are sorted by length, so that little padding
/// is computed.
fn epoch_batches(train: &[Sample], seed: u64, epoch: u64, batch_size: usize) -> Vec<Vec<usize>> {
    let shuffled = permutation(train.len(), seed, Stream::Shuffle, epoch);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for stretch in shuffled.chunks(batch_size * 16) {
        let mut stretch = stretch.to_vec();
        stretch.sort_by_key(|i| train[*i].ids.len());
        batches.extend(stretch.chunks(batch_size).map(<[usize]>::to_vec));
    }
    permutation(batches.len(), seed, Stream::Init, epoch).into_iter().map(|i| std::mem::take(&mut batches[i])).collect()
}

fn view(sample: &Sample) -> SftSequence<'_> {
    SftSequence {
        prompt_ids: &sample.ids[..sample.start],
        completion_ids: &sample.ids[sample.start..],
        learned: &sample.learned[sample.start..],
    }
}

fn perplexity(master: &Master, held: &[Sample], micro: usize, device: &Device) -> anyhow::Result<f64> {
    let _no_grad = tch::no_grad_guard();
    let model = master.model()?;
    let (mut nll, mut tokens) = (0.0, 0);
    for part in held.chunks(micro.max(1)) {
        let (value, count) = masked_nll(&model, &part.iter().map(view).collect::<Vec<_>>(), device);
        nll += value;
        tokens += count;
    }
    Ok((nll / tokens as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_an_epoch_hold_each_row_once() {
        let sample = |i: usize| Sample { ids: vec![0; i % 7 + 2], learned: Vec::new(), start: 1, asked: String::new() };
        let train: Vec<Sample> = (0..53).map(sample).collect();
        for (epoch, size) in [(0, 4), (1, 4), (0, 1), (0, 53), (0, 7)] {
            let batches = epoch_batches(&train, 3, epoch, size);
            assert_eq!(batches.len(), 53usize.div_ceil(size));
            assert!(batches.iter().all(|batch| (1..=size).contains(&batch.len())));
            let mut rows = batches.concat();
            rows.sort_unstable();
            assert_eq!(rows, (0..53).collect::<Vec<_>>());
        }
        assert_ne!(epoch_batches(&train, 3, 0, 4), epoch_batches(&train, 3, 1, 4));
    }
}
