//! The memory estimate of `--dry-run`.

use joust_config::{
    RunFile,
    run::{LossName, Optimizer, Select},
};

use joust_model::ModelConfig;
use joust_torch::Limits;

use super::roles::{averaged, keeps_past};
use crate::model::LanguageModel;

/// Returns how many numbers of a token are kept for the backward pass.
fn activations(run: &RunFile, config: &ModelConfig) -> u64 {
    let layer = (8 * config.hidden_size + 3 * config.intermediate_size) as u64;
    let layers = config.num_hidden_layers as u64;
    match run.learner.activation_checkpointing {
        true => 2 * layers * config.hidden_size as u64 + layer,
        false => layers * layer,
    }
}

/// Returns the bytes of the logits of so many tokens: those that are kept, and the slices under way in both directions.
fn logits(tokens: u64, vocabulary: u64, element: u64) -> u64 {
    let Limits { slice, kept } = Limits::default();
    let all = tokens * vocabulary;
    all.min(kept as u64) * element + all.min(slice as u64) * (2 * element + 8)
}

/// Formats the bytes by kind, as comments below the resolved run file.
pub fn estimate(run: &RunFile, model: &LanguageModel) -> String {
    let config = &model.config;
    let parameters = config.parameters() as u64;
    let adapter = model.adapter.as_ref();
    let trained_parameters =
        adapter.map_or(parameters, |adapter| adapter.weights.0.values().map(|tensor| tensor.numel() as u64).sum());
    let reference = if adapter.is_some() { "base of policy and reference" } else { "reference" };
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
    let logits = logits(sequences * u64::from(run.sampling.max_new_tokens), config.vocab_size as u64, element);
    let activations = sequences * tokens * activations(run, config) * element;
    let remembered = match run.learner.optim.optimizer {
        Optimizer::Adamw => 8,
        Optimizer::Rmsprop => 4,
        Optimizer::Adafactor => 0, // rows and columns
    };
    let ranks = u64::from(run.learner.ranks);
    // Rows that only the update reads are shared by the ranks.
    let (own, critic) = (trained_parameters / ranks, parameters / ranks);
    let reference_for = ["training", "sampling"].map(|what| format!("{reference}, for {what}"));
    let mut training = vec![
        ("float32 masters", 4 * own),
        ("the optimizer's memory", remembered * own),
        ("gradients", 4 * own),
        ("compute copy", element * trained_parameters),
        (reference_for[0].as_str(), element * parameters),
        ("activations of a micro-batch", activations),
        ("logits of a micro-batch", logits),
    ];
    let mut sampling = vec![
        ("policy snapshot, for sampling", element * trained_parameters),
        // Copied, then laid out, while the one before is still there.
        ("the next policy snapshot", 2 * element * trained_parameters),
        (reference_for[1].as_str(), element * parameters),
        ("KV cache", rows * tokens * cache_token),
    ];
    if averaged(run) {
        training.push(("averaged policy, for training", 4 * own));
        sampling.push(("averaged policy, for sampling", element * trained_parameters));
    }
    if keeps_past(run) {
        training.push(("past policy, for training", 8 * own));
        sampling.push(("past policy, for sampling", element * trained_parameters));
    }
    if matches!(run.loss.name, LossName::Ppo | LossName::Dro) {
        training.push(("critic with its moments and gradients", (8 + remembered) * critic + element * parameters));
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
    let rank = sum(&training);
    let each = if ranks > 1 { line(&("each of the ranks", rank)) } else { String::new() };
    let total = line(&("total", ranks * rank + sum(&sampling)));
    let trained = adapter.map_or(String::new(), |_| format!(", {trained_parameters} trained in adapters"));
    format!(
        "# memory estimate, {parameters} parameters{trained}\n{}{each}{}{total}",
        lines(&training),
        lines(&sampling)
    )
}
