//! The memory estimate of `--dry-run`.

use joust_config::{
    RunFile,
    run::{LossName, Optimizer, Select},
};
use joust_model::ModelConfig;

use super::roles::{averaged, keeps_past};

/// Formats the bytes by kind, as comments below the resolved run file.
pub fn estimate(run: &RunFile, config: &ModelConfig) -> String {
    let parameters = config.parameters() as u64;
    let element = config.dtype.kind().elt_size_in_bytes() as u64;
    let rows = u64::from(run.learner.prompts_per_step) * u64::from(run.sampling.num_generations);
    let tokens = u64::from(run.sampling.max_new_tokens) * 2; // prompts as long as answers, for want of better
    let cache_token =
        2 * config.num_hidden_layers as u64 * (config.num_key_value_heads * config.head_dim) as u64 * element;
    let trained = match run.pairing.select {
        Select::Single | Select::List => u64::from(run.sampling.judged()),
        _ => 2,
    };
    let sequences = trained * u64::from(run.learner.micro_batch);
    let logits = sequences * u64::from(run.sampling.max_new_tokens) * config.vocab_size as u64 * 4 * 3;
    let width = (8 * config.hidden_size + 3 * config.intermediate_size) as u64;
    let activations = sequences * tokens * config.num_hidden_layers as u64 * width * element;
    let remembered = match run.learner.optim.optimizer {
        Optimizer::Adamw => 8,
        Optimizer::Rmsprop => 4,
        Optimizer::Adafactor => 0, // rows and columns
    };
    let mut training = vec![
        ("float32 masters", 4 * parameters),
        ("the optimizer's memory", remembered * parameters),
        ("gradients", 4 * parameters),
        ("compute copy", element * parameters),
        ("reference, for training", element * parameters),
        ("activations of a micro-batch", activations),
        ("logits of a micro-batch", logits),
    ];
    let mut sampling = vec![
        ("policy snapshot, for sampling", element * parameters),
        ("reference, for sampling", element * parameters),
        ("KV cache", rows * tokens * cache_token),
    ];
    if averaged(run) {
        training.push(("averaged policy, for training", 4 * parameters));
        sampling.push(("averaged policy, for sampling", element * parameters));
    }
    if keeps_past(run) {
        training.push(("past policy, for training", 8 * parameters));
        sampling.push(("past policy, for sampling", element * parameters));
    }
    if matches!(run.loss.name, LossName::Ppo | LossName::Dro) {
        training.push(("critic with its moments and gradients", (8 + remembered + element) * parameters));
    }
    if matches!(run.loss.name, LossName::Mapo | LossName::SparsePo) {
        let layers = if run.loss.name == LossName::SparsePo { config.num_hidden_layers as u64 } else { 0 };
        let step = trained * u64::from(run.learner.prompts_per_step) * u64::from(run.sampling.max_new_tokens);
        let states = step * (layers + 1) * config.hidden_size as u64 * element;
        training.push(("the reference's states at a step's tokens", states));
    }
    let sum = |kinds: &[(&str, u64)]| kinds.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let line = |(name, bytes): &(&str, u64)| format!("# {name:<42} {:>10.1} MiB\n", *bytes as f64 / f64::from(1 << 20));
    let lines = |kinds: &[(&str, u64)]| kinds.iter().map(line).collect::<String>();
    let (ranks, own) = (u64::from(run.learner.ranks), sum(&training));
    let each = if ranks > 1 { line(&("each of the ranks", own)) } else { String::new() };
    let total = line(&("total", ranks * own + sum(&sampling)));
    format!("# memory estimate, {parameters} parameters\n{}{each}{}{total}", lines(&training), lines(&sampling))
}
