//! Packed sequences against each sequence alone: states, log-probs, gradients, and how many tokens are computed.

use joust_model::{Dtype, Llama, SequenceBatch, Weights};
use joust_testkit::{tiny_config, tiny_weights};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const VOCAB: i64 = 40;

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

/// log π of each completion token of one sequence, from a row of its own without padding.
fn alone(model: &Llama, prompt: &[u32], completion: &[u32]) -> Tensor {
    let all: Vec<i64> = prompt.iter().chain(completion).map(|id| i64::from(*id)).collect();
    let hidden = model.hidden(&Tensor::from_slice(&all).unsqueeze(0)).squeeze_dim(0);
    let rows = hidden.narrow(0, prompt.len() as i64 - 1, completion.len() as i64);
    let targets = Tensor::from_slice(&completion.iter().map(|id| i64::from(*id)).collect::<Vec<_>>());
    model.head(&rows).log_softmax(1, Kind::Float).gather(1, &targets.unsqueeze(1), false).squeeze_dim(1)
}

/// Weights that gather gradients.
fn leaves(dtype: Dtype) -> (Llama, Weights) {
    let config = tiny_config(VOCAB).with_dtype(dtype);
    let leaf = |(name, tensor): (String, Tensor)| (name, tensor.to_kind(dtype.kind()).set_requires_grad(true));
    let weights = Weights(tiny_weights(&config, 5).0.into_iter().map(leaf).collect());
    (Llama::new(&config, &weights).expect("weights are whole"), weights)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn log_probs_and_gradients_are_those_of_each_sequence_alone(
        groups in prop::collection::vec((1usize..7, prop::collection::vec(1usize..9, 1..4)), 1..4),
    ) {
        let prompts: Vec<Vec<u32>> = groups.iter().enumerate().map(|(g, (tokens, _))| ids(g + 50, *tokens)).collect();
        let sequences: Vec<(&[u32], Vec<u32>)> = groups.iter().zip(&prompts).enumerate()
            .flat_map(|(g, ((_, answers), prompt))| {
                answers.iter().enumerate().map(move |(k, tokens)| (prompt.as_slice(), ids(7 * g + k, *tokens)))
            })
            .collect();
        let borrowed: Vec<(&[u32], &[u32])> = sequences.iter().map(|(p, c)| (*p, c.as_slice())).collect();
        let batch = SequenceBatch::new(&borrowed, Device::Cpu);
        // Prompts count once, unless two groups happen to have the same; a completion's last token does not count.
        let most: usize = groups.iter().map(|(p, all)| p + all.iter().map(|tokens| tokens - 1).sum::<usize>()).sum();
        prop_assert!(batch.computed() <= most);

        let [(packed, own), (single, other)] = [leaves(Dtype::Float32), leaves(Dtype::Float32)];
        let found = batch.token_logprobs(&packed);
        let expected = Tensor::cat(&borrowed.iter().map(|(p, c)| alone(&single, p, c)).collect::<Vec<_>>(), 0);
        prop_assert!(found.allclose(&expected, 1e-4, 1e-5, false), "{found} {expected}");
        let weight = Tensor::arange(found.size()[0], (Kind::Float, Device::Cpu)) / 10.0 - 0.3;
        (found * &weight).sum(Kind::Float).backward();
        (expected * &weight).sum(Kind::Float).backward();
        for (name, tensor) in &own.0 {
            let (found, expected) = (tensor.grad(), other.0[name].grad());
            let apart = (&found - &expected).abs().max().double_value(&[]);
            prop_assert!(apart < 1e-4 * expected.abs().max().double_value(&[]).max(1.0), "{name}: {apart}");
        }
    }
}

#[test]
fn bfloat16_log_probs_differ_by_rounding_only() {
    let (model, _) = leaves(Dtype::Bfloat16);
    let (prompt, answers) = (ids(1, 9), [ids(2, 12), ids(3, 5), ids(4, 8)]);
    let sequences: Vec<(&[u32], &[u32])> = answers.iter().map(|a| (prompt.as_slice(), a.as_slice())).collect();
    let batch = SequenceBatch::new(&sequences, Device::Cpu);
    assert_eq!(batch.computed(), 9 + 11 + 4 + 7);
    let found = batch.token_logprobs(&model);
    let expected = Tensor::cat(&sequences.iter().map(|(p, c)| alone(&model, p, c)).collect::<Vec<_>>(), 0);
    assert!((found - expected).abs().max().double_value(&[]) < 0.05);
}

#[test]
fn layers_that_are_computed_again_give_the_same_gradients() {
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let [(kept, own), (again, other)] = [leaves(dtype), leaves(dtype)];
        let again = again.recomputing(true);
        let (prompt, answers) = (ids(1, 9), [ids(2, 12), ids(3, 5)]);
        let sequences: Vec<(&[u32], &[u32])> = answers.iter().map(|a| (prompt.as_slice(), a.as_slice())).collect();
        let batch = SequenceBatch::new(&sequences, Device::Cpu);
        let logps = [kept, again].map(|model| batch.logps(&model));
        assert_eq!(logps[0], logps[1]);
        logps.into_iter().for_each(|logps| logps.sum(Kind::Float).backward());
        for (name, tensor) in &own.0 {
            assert_eq!(tensor.grad(), other.0[name].grad(), "{name} in {dtype:?}");
        }
    }
}
