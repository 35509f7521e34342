//! Heads without training: the principal components of pairs (DRM), and the mix of heads that suits one user.

use anyhow::ensure;
use joust_config::RewardFile;
use joust_data::Tokenizer;
use joust_losses::{head_weights, reward_components};
use joust_model::{Head, Llama, ModelConfig, Weights, sequence_states};
use joust_train::RewardPair;
use tch::{Kind, Tensor};

use super::{
    open,
    pairs::{Pair, read},
    report_held,
};
use crate::{model::rated, padding};

/// Sequences read at once.
const BATCH: usize = 32;
/// Of the softmax over the accuracies of heads: ten points of accuracy are a factor of e.
const TEMPERATURE: f64 = 0.1;

/// Returns the better answer of a pair.
pub(super) fn chosen(pair: &RewardPair) -> &Vec<u32> {
    &pair.chosen
}

/// Returns the worse answer of a pair.
pub(super) fn rejected(pair: &RewardPair) -> &Vec<u32> {
    &pair.rejected
}

/// Computes the last hidden state of the last token of one side of each pair, float32 `[N, H]`.
pub(super) fn states(model: &Llama, pairs: &[Pair], side: fn(&RewardPair) -> &Vec<u32>) -> Tensor {
    let read = |part: &[Pair]| {
        let sequences: Vec<Vec<u32>> = part.iter().map(|pair| side(&pair.sequences).clone()).collect();
        sequence_states(model, &sequences).to_kind(Kind::Float)
    };
    Tensor::cat(&pairs.chunks(BATCH).map(read).collect::<Vec<_>>(), 0)
}

/// Computes by how much the scores of chosen exceed those of rejected under heads `[K, H]`, float64 `[N, K]`.
fn gaps(model: &Llama, pairs: &[Pair], heads: &Tensor) -> Tensor {
    let differences = states(model, pairs, chosen) - states(model, pairs, rejected);
    differences.to_kind(Kind::Double).matmul(&heads.to_kind(Kind::Double).tr())
}

/// Returns the share of the pairs that each head orders right, a tie counted half.
fn accuracies(gaps: &Tensor) -> anyhow::Result<Vec<f64>> {
    Ok(Vec::try_from(((gaps.sign() + 1.0) / 2.0).mean_dim([0i64].as_slice(), false, Kind::Double))?)
}

/// Writes principal components in the place of a head, each with a label of its own.
pub(super) fn decompose(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<(ModelConfig, Weights)> {
    let _no_grad = tch::no_grad_guard();
    let (config, weights) = open(file, tokenizer)?;
    let (train, held) = read(file, tokenizer, &config)?;
    let labels: Vec<String> = (1..=file.loss.components).map(|i| format!("component_{i}")).collect();
    let (config, mut weights) = rated(config, &weights, padding::id(tokenizer), &labels);
    let model = Llama::new(&config, &weights)?;
    let differences = states(&model, &train, chosen) - states(&model, &train, rejected);
    let (heads, shares) = reward_components(&differences, i64::from(file.loss.components))?;
    let shares = Vec::<f64>::try_from(shares)?;
    let measured = if held.is_empty() { &train } else { &held };
    for ((label, share), accuracy) in labels.iter().zip(shares).zip(accuracies(&gaps(&model, measured, &heads))?) {
        eprintln!("{label} variance={share:.3} accuracy={accuracy:.3}");
    }
    weights.0.insert("score.weight".into(), heads.to_kind(Kind::Float));
    Ok((config, weights))
}

/// Mixes the heads of a reward model into one, as the pairs of one user want it.
pub(super) fn combine(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<(ModelConfig, Weights)> {
    let _no_grad = tch::no_grad_guard();
    let (config, weights) = open(file, tokenizer)?;
    ensure!(
        config.head == Head::Score && config.labels.len() > 1,
        "{} has no heads to combine; give a folder that loss.components or loss.attributes made",
        file.model.base.display()
    );
    let (train, held) = read(file, tokenizer, &config)?;
    let model = Llama::new(&config, &weights)?;
    let heads = weights.get("score.weight")?.to_kind(Kind::Double);
    let mix = head_weights(&gaps(&model, &train, &heads), TEMPERATURE)?;
    for (label, weight) in config.labels.iter().zip(Vec::<f64>::try_from(&mix)?) {
        eprintln!("{label} weight={weight:.3}");
    }
    let head = mix.unsqueeze(0).matmul(&heads);
    if !held.is_empty() {
        report_held(held.len(), accuracies(&gaps(&model, &held, &head))?[0]);
    }
    let (config, mut weights) = rated(config, &weights, padding::id(tokenizer), &[]);
    weights.0.insert("score.weight".into(), head.to_kind(Kind::Float));
    Ok((config, weights))
}
