//! The engine against plain forward passes of the same model: tokens, log-probs, ends and independence from the batch.

use std::sync::Arc;

use joust_core::{Finish, ModelRef, rng, rng::Stream};
use joust_engine::{
    Engine, Error, SamplePrompt, SampleRequest, Sampled, SamplingParams, ScoreRequest, Snapshot, Source,
};
use joust_model::{Device, Llama, ModelConfig, Weights, sequence_logprobs};
use joust_testkit::{tiny_config, tiny_weights};
use tch::{Kind, Tensor};

const VOCAB: i64 = 40;

fn model() -> (ModelConfig, Weights, Arc<Snapshot>) {
    let config = tiny_config(VOCAB);
    let weights = tiny_weights(&config, 3);
    let id = ModelRef { generation: 0, version: 4, hash: "h".into() };
    let snapshot = Snapshot::new(&config, &weights, id).expect("weights are whole");
    (config, weights, Arc::new(snapshot))
}

fn params() -> SamplingParams {
    SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 24, eos_ids: vec![2, 7] }
}

fn request(model: &Arc<Snapshot>, prompts: Vec<SamplePrompt>) -> SampleRequest {
    SampleRequest { prompts, params: params(), seed: 11, stream: Stream::Train, source: Source::Model(model.clone()) }
}

fn prompts(n: u64) -> Vec<SamplePrompt> {
    let ids = |p: u64| (0..=(p % 5) as u32 * 3).map(|i| (i * 7 + p as u32) % VOCAB as u32).collect();
    (0..n).map(|p| SamplePrompt { position: p, prompt_ids: ids(p), samples: 0..3 }).collect()
}

fn sample(max_rows: usize, request: SampleRequest) -> Vec<Sampled> {
    let engine = Engine::start(Device::cpu(), max_rows).expect("a thread");
    let expected = request.prompts.iter().map(|p| p.samples.len()).sum();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(engine.submit(request).collect(expected)).expect("sampled")
}

#[test]
fn logprobs_are_those_of_a_plain_forward_pass() {
    let (config, weights, snapshot) = model();
    let plain = Llama::new(&config, &weights).expect("weights are whole");
    let request = request(&snapshot, prompts(7));
    for answer in sample(64, request.clone()) {
        let prompt = &request.prompts[answer.prompt].prompt_ids;
        let ids: Vec<i64> = prompt.iter().chain(&answer.token_ids).map(|id| i64::from(*id)).collect();
        let rows = plain.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).squeeze_dim(0);
        let (start, n) = (prompt.len() as i64 - 1, answer.token_ids.len() as i64);
        let targets = Tensor::from_slice(&ids[prompt.len()..]);
        let expected = Vec::<f32>::try_from(sequence_logprobs(&plain, &rows.narrow(0, start, n), &targets)).unwrap();
        for (got, wanted) in answer.logprobs.iter().zip(expected) {
            assert!((got - wanted).abs() < 1e-4, "{got} {wanted}");
        }
    }
}

#[test]
fn tokens_follow_the_keyed_uniforms() {
    let (config, weights, snapshot) = model();
    let plain = Llama::new(&config, &weights).expect("weights are whole");
    let request = request(&snapshot, prompts(3));
    for answer in sample(64, request.clone()) {
        let mut ids: Vec<i64> = request.prompts[answer.prompt].prompt_ids.iter().map(|id| i64::from(*id)).collect();
        for (t, token) in answer.token_ids.iter().enumerate() {
            let hidden = plain.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).squeeze_dim(0);
            let logits = plain.head(&hidden.get(ids.len() as i64 - 1));
            let probabilities = Vec::<f64>::try_from(logits.softmax(0, Kind::Double)).unwrap();
            let u = rng::uniform(11, Stream::Train, answer.prompt as u64, (answer.sample_index, t as u32));
            let below: f64 = probabilities[..*token as usize].iter().sum();
            let own = probabilities[*token as usize];
            assert!(below - 1e-4 <= u && u <= below + own + 1e-4, "u {u} outside [{below}, {}]", below + own);
            ids.push(i64::from(*token));
        }
    }
}

#[test]
fn answers_do_not_depend_on_the_batch_they_share() {
    let (_, _, snapshot) = model();
    let together = sample(64, request(&snapshot, prompts(9)));
    let apart = sample(3, request(&snapshot, prompts(9)));
    let tokens = |all: &[Sampled]| all.iter().map(|s| s.token_ids.clone()).collect::<Vec<_>>();
    assert_eq!(tokens(&together), tokens(&apart));
    assert_eq!(together.len(), 27);
    assert_eq!(sample(64, request(&snapshot, prompts(9))), together, "the same request gives the same bits");
}

#[test]
fn answers_end_at_any_eos_or_at_the_limit() {
    let (_, _, snapshot) = model();
    let all = sample(64, request(&snapshot, prompts(20)));
    for answer in &all {
        let (last, before) = answer.token_ids.split_last().expect("never empty");
        assert!(before.iter().all(|id| *id != 2 && *id != 7));
        match answer.finish {
            Finish::Eos => assert!(*last == 2 || *last == 7),
            Finish::Length => assert_eq!(answer.token_ids.len(), 24),
        }
        assert_eq!(answer.model.version, 4);
    }
    for finish in [Finish::Eos, Finish::Length] {
        assert!(all.iter().any(|answer| answer.finish == finish), "{finish:?} never happened");
    }
}

#[test]
fn answers_stop_at_the_context() {
    let (_, _, snapshot) = model();
    let long = SamplePrompt { position: 0, prompt_ids: vec![5; 120], samples: 0..2 };
    let short = SamplePrompt { position: 1, prompt_ids: vec![5; 2], samples: 0..2 };
    let mut request = request(&snapshot, vec![long, short]);
    request.params.eos_ids.clear();
    let lengths: Vec<usize> = sample(8, request).iter().map(|s| s.token_ids.len()).collect();
    assert_eq!(lengths, [8, 8, 24, 24]);
}

#[test]
fn what_the_model_cannot_take_is_refused_by_name() {
    let (_, _, snapshot) = model();
    let engine = Engine::start(Device::cpu(), 8).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let error = |ids: Vec<u32>| {
        let prompts = vec![SamplePrompt { position: 9, prompt_ids: ids, samples: 0..1 }];
        runtime.block_on(engine.submit(request(&snapshot, prompts)).collect(1)).expect_err("refused")
    };
    assert!(matches!(error(vec![1; 128]), Error::PromptTooLong { position: 9, tokens: 128, context: 128 }));
    assert!(matches!(error(vec![40]), Error::TokenId { position: 9, id: 40, vocab_size: 40 }));
    assert!(matches!(error(vec![]), Error::EmptyPrompt { position: 9 }));
}

/// Two snapshots of different weights.
fn two() -> [(Llama, Arc<Snapshot>); 2] {
    [3, 8].map(|seed| {
        let config = tiny_config(VOCAB);
        let weights = tiny_weights(&config, seed);
        let id = ModelRef { generation: 0, version: seed, hash: "h".into() };
        let snapshot = Snapshot::new(&config, &weights, id).expect("weights are whole");
        (Llama::new(&config, &weights).expect("weights are whole"), Arc::new(snapshot))
    })
}

fn mixed(policy: &Arc<Snapshot>, reference: &Arc<Snapshot>, coef: f64) -> SampleRequest {
    let source =
        Source::Mixture { policy: policy.clone(), reference: reference.clone(), coef, mixed: (0..64).collect() };
    SampleRequest { source, ..request(policy, prompts(7)) }
}

#[test]
fn mixtures_draw_from_the_product_of_powers() {
    let [(plain_policy, policy), (plain_reference, reference)] = two();
    let mut request = mixed(&policy, &reference, 0.25);
    request.params.temperature = 0.8;
    for answer in sample(64, request.clone()) {
        let mut ids: Vec<i64> = request.prompts[answer.prompt].prompt_ids.iter().map(|id| i64::from(*id)).collect();
        let logprobs = |model: &Llama, ids: &[i64]| -> Tensor {
            let hidden = model.hidden(&Tensor::from_slice(ids).unsqueeze(0)).squeeze_dim(0);
            model.head(&hidden.get(ids.len() as i64 - 1)).log_softmax(0, Kind::Double)
        };
        for (t, token) in answer.token_ids.iter().enumerate() {
            let product: Tensor = 0.75 * logprobs(&plain_policy, &ids) + 0.25 * logprobs(&plain_reference, &ids);
            let plain = Vec::<f64>::try_from(product.log_softmax(0, Kind::Double)).unwrap();
            assert!((plain[*token as usize] - f64::from(answer.logprobs[t])).abs() < 1e-4);
            let drawn = Vec::<f64>::try_from((product / 0.8).softmax(0, Kind::Double)).unwrap();
            let position = request.prompts[answer.prompt].position;
            let u = rng::uniform(11, Stream::Train, position, (answer.sample_index, t as u32));
            let below: f64 = drawn[..*token as usize].iter().sum();
            assert!(below - 1e-4 <= u && u <= below + drawn[*token as usize] + 1e-4);
            ids.push(i64::from(*token));
        }
        assert_eq!(answer.model, policy.id);
    }
}

#[test]
fn mixtures_end_in_their_parts() {
    let [(_, policy), (_, reference)] = two();
    let tokens = |request| sample(64, request).into_iter().map(|s| s.token_ids).collect::<Vec<_>>();
    let alone = |model| tokens(request(model, prompts(7)));
    assert_eq!(tokens(mixed(&policy, &reference, 0.0)), alone(&policy));
    assert_eq!(tokens(mixed(&policy, &reference, 1.0)), alone(&reference));
    assert_eq!(
        tokens(mixed(&policy, &policy, 0.5)),
        alone(&policy),
        "a model with itself is itself, and does not wait"
    );
    assert_ne!(alone(&policy), alone(&reference));
}

#[test]
fn mixed_and_plain_answers_of_one_request_are_those_of_two() {
    let [(_, policy), (_, reference)] = two();
    let some = |indices: Vec<u32>| {
        let source =
            Source::Mixture { policy: policy.clone(), reference: reference.clone(), coef: 0.4, mixed: indices };
        sample(64, SampleRequest { source, ..request(&policy, prompts(7)) })
    };
    let (plain, all) = (sample(64, request(&policy, prompts(7))), some(vec![0, 1, 2]));
    for (found, (plain, all)) in some(vec![1]).into_iter().zip(plain.iter().zip(&all)) {
        let wanted = if found.sample_index == 1 { all } else { plain };
        assert_eq!(found.token_ids, wanted.token_ids);
        for (a, b) in found.logprobs.iter().zip(&wanted.logprobs) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
    assert!(plain.iter().zip(&all).any(|(a, b)| a.token_ids != b.token_ids));
}

#[test]
fn answers_are_scored_as_they_were_sampled() {
    let (_, _, model) = model();
    let sampled = sample(64, request(&model, prompts(40)));
    let asked = prompts(40);
    let sequence = |s: &Sampled| (asked[s.prompt].prompt_ids.clone(), s.token_ids.clone());
    let sequences: Vec<_> = sampled.iter().map(sequence).collect();
    let engine = Engine::start(Device::cpu(), 64).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let score = |sequences| runtime.block_on(engine.score(ScoreRequest { model: model.clone(), sequences }));
    let logps = score(sequences).expect("scored");
    assert_eq!(logps.len(), sampled.len());
    for (sampled, logp) in sampled.iter().zip(logps) {
        let own: f32 = sampled.logprobs.iter().sum();
        assert!((own - logp).abs() < 1e-3, "{own}, scored {logp}");
    }
    for (bad, said) in [
        ((vec![1], vec![]), "no tokens"),
        ((vec![1; 100], vec![2; 100]), "200 tokens"),
        ((vec![1], vec![9999]), "9999"),
    ] {
        let error = score(vec![(vec![1], vec![2]), bad]).expect_err("refused").to_string();
        assert!(error.contains("sequence 1 cannot be read") && error.contains(said), "{error}");
    }
}
