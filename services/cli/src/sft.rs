//! `joust sft`: makes or adapts a base model by supervised fine-tuning.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, bail, ensure};
use joust_config::{NewModel, SftFile, run::OnError as ConfigOnError};
use joust_core::{
    rng::{Stream, permutation},
    scratch::{Scratch, check_target},
};
use joust_data::{OnError, Supervised, Tokenizer, read_supervised, read_texts, split_by, train_bpe};
use joust_model::{Device, Head, ModelConfig, Weights, publish_folder};
use joust_train::{Master, perplexity_parts, sft_step};
use serde_json::{Value, json};

use crate::{args::TrainArgs, device, model, optim};

/// A prompt and an answer as ids.
struct Pair {
    prompt: Vec<u32>,
    completion: Vec<u32>,
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
    let pairs = tokenize(&start.tokenizer, &examples, file.data.max_length as usize)?;
    let (train, held) = split_by(pairs, |pair| format!("{:?}", pair.prompt), file.data.eval_fraction, file.seed)?;
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

fn tokenize(tokenizer: &Tokenizer, examples: &[Supervised], max_length: usize) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::with_capacity(examples.len());
    let mut long = 0;
    for example in examples {
        let mut completion = tokenizer.encode_completion(&example.completion)?;
        let prompt = match &example.prompt {
            Some(prompt) => tokenizer.encode_prompt(prompt)?,
            // Plain text: its first token stands in as the prompt, all others are learned.
            None => completion.drain(..1).collect(),
        };
        if prompt.len() + completion.len() > max_length || prompt.is_empty() || completion.is_empty() {
            long += 1;
        } else {
            pairs.push(Pair { prompt, completion });
        }
    }
    if long > 0 {
        eprintln!("left out {long} examples that are empty or longer than data.max_length = {max_length} tokens");
    }
    ensure!(!pairs.is_empty(), "no example fits data.max_length = {max_length} tokens; raise it");
    Ok(pairs)
}

fn train_loop(file: &SftFile, start: &Start, train: &[Pair], held: &[Pair]) -> anyhow::Result<Master> {
    let batch_size = (file.learner.batch_size as usize).min(train.len());
    let per_epoch = (train.len() / batch_size) as u64;
    let steps = file.learner.optim.steps.unwrap_or(per_epoch * u64::from(file.learner.epochs)).max(1);
    let config = start.config.clone().with_dtype(joust_model::Dtype::Float32);
    let settings = optim::settings(file.learner.learning_rate, &file.learner.optim, steps);
    let mut master = Master::new(&config, &start.weights, settings);
    let device = device::chosen();
    let began = std::time::Instant::now();
    let mut order = Vec::new();
    for step in 0..steps {
        if step % per_epoch == 0 {
            order = epoch_order(train, file.seed, step / per_epoch, batch_size);
        }
        let at = (step % per_epoch) as usize * batch_size;
        let batch: Vec<(&[u32], &[u32])> = order[at..at + batch_size].iter().map(|i| view(&train[*i])).collect();
        let (loss, update) = sft_step(&mut master, &batch, file.learner.micro_batch as usize, &device)?;
        if (step + 1) % 50 == 0 || step + 1 == steps {
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("step={}/{steps} loss={loss:.4} lr={:.2e} seconds={seconds:.0}", step + 1, update.learning_rate);
        }
    }
    if !held.is_empty() {
        let perplexity = perplexity(&master, held, file.learner.micro_batch as usize, &device)?;
        eprintln!("held_out={} perplexity={perplexity:.3}", held.len());
    }
    Ok(master)
}

/// Shuffles an epoch, then sorts within stretches of some batches by length, so that little padding is computed.
fn epoch_order(train: &[Pair], seed: u64, epoch: u64, batch_size: usize) -> Vec<usize> {
    let shuffled = permutation(train.len(), seed, Stream::Shuffle, epoch);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for stretch in shuffled.chunks(batch_size * 16) {
        let mut stretch = stretch.to_vec();
        stretch.sort_by_key(|i| train[*i].prompt.len() + train[*i].completion.len());
        batches.extend(stretch.chunks(batch_size).map(<[usize]>::to_vec));
    }
    let whole: Vec<Vec<usize>> = batches.into_iter().filter(|batch| batch.len() == batch_size).collect();
    permutation(whole.len(), seed, Stream::Init, epoch).into_iter().flat_map(|i| whole[i].clone()).collect()
}

fn view(pair: &Pair) -> (&[u32], &[u32]) {
    (&pair.prompt, &pair.completion)
}

fn perplexity(master: &Master, held: &[Pair], micro: usize, device: &Device) -> anyhow::Result<f64> {
    let _no_grad = tch::no_grad_guard();
    let model = master.model()?;
    let (mut nll, mut tokens) = (0.0, 0);
    for part in held.chunks(micro.max(1)) {
        for (value, count) in perplexity_parts(&model, &part.iter().map(view).collect::<Vec<_>>(), device) {
            nll += value;
            tokens += count;
        }
    }
    Ok((nll / tokens as f64).exp())
}
