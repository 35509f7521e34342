//! MaPO and SparsePO through the trainer: a step's loss against a plain decoder in float64, micro-batches, checkpoints, and what they lack.

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_losses::PairLoss;
use joust_model::{Device, Llama, Weights};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{
    Checkpoint, Master, Objective, OptimizerParams, Ranks, Schedule, ScheduleKind, Settings, StepMetrics, Trainer,
    heads,
};
use tch::{Kind, Tensor};

const VOCAB: i64 = 40;
const BETA: f64 = 0.3;
const LAMBDA: f64 = 0.01;

fn sparse(heads: f64) -> PairLoss {
    PairLoss::SparsePo { beta: BETA, lambda: LAMBDA, heads, mask_decay: 0.1 }
}

fn every_loss() -> [PairLoss; 3] {
    [PairLoss::Mapo { beta: BETA }, sparse(1.0), sparse(2.0)]
}

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

fn example(i: usize) -> Example {
    let answer = |side: usize| Answer {
        player: Player::Policy,
        // One of them has one token, whose activations are all there is to compare with.
        token_ids: ids(i * 2 + side, 1 + (i * 5 + side * 2) % 7),
        behavior_logprobs: Vec::new(),
        finish: Finish::Eos,
        score: None,
    };
    Example {
        id: RecordId::derive(&[&[i as u8]]),
        prompt_ids: ids(i + 100, 2 + i % 5),
        answers: vec![answer(0), answer(1)],
        target: Target::Pair { p: 1.0, win_rates: None },
        rationale: None,
        weight: 1.0 + i as f64 / 8.0,
        policy_version: 0,
        source: ExampleSource::Online,
        judge_hash: String::new(),
    }
}

fn trainer(loss: PairLoss) -> (Trainer, Llama) {
    let (config, objective) = (tiny_config(VOCAB), Objective::Pair(loss));
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 3e-3, warmup_steps: 0, total_steps: 100 };
    let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
    let mut trainer = Trainer::new(Master::new(&config, &tiny_weights(&config, 5), settings), objective, Device::cpu());
    trainer.heads = heads(&objective, &config, settings, (Ranks::default(), tch::Device::Cpu)).expect("alone");
    (trainer, Llama::new(&config, &tiny_weights(&config, 6)).expect("weights are whole"))
}

/// Takes steps on eight pairs, cut into micro-batches of the given sizes.
fn steps(loss: PairLoss, sizes: &[usize], count: usize) -> (Trainer, Vec<StepMetrics>) {
    let (mut trainer, reference) = trainer(loss);
    let mut examples = (0..8).map(example);
    let cut = sizes.iter().map(|size| examples.by_ref().take(*size).collect()).collect();
    let prepared = trainer.prepare(&reference, cut).expect("pairs");
    let metrics = (0..count).map(|_| trainer.step(&prepared).expect("finite")).collect();
    (trainer, metrics)
}

/// A plain Llama in float64: residual streams after each layer `[T, H]`, and log-probs `[T, V]`.
fn decode(weights: &Weights, ids: &[u32]) -> (Vec<Tensor>, Tensor) {
    let get = |name: &str| weights.0[name].to_kind(Kind::Double);
    let norm =
        |x: &Tensor, weight: Tensor| x * (x.square().mean_dim(-1i64, true, Kind::Double) + 1e-6).rsqrt() * weight;
    let (tokens, heads, shared, dim) = (ids.len() as i64, 4, 2, 8);
    let place = Tensor::arange(tokens, (Kind::Double, tch::Device::Cpu)).unsqueeze(1);
    let angle =
        place * (Tensor::arange(dim / 2, (Kind::Double, tch::Device::Cpu)) * (-2.0 * 1e4f64.ln() / dim as f64)).exp();
    let angle = Tensor::cat(&[&angle, &angle], 1); // [T, D]
    let turn = |x: Tensor| {
        let halves = x.chunk(2, -1);
        &x * angle.cos() + Tensor::cat(&[&-&halves[1], &halves[0]], -1) * angle.sin()
    };
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let embedding = get("model.embed_tokens.weight");
    let mut x = embedding.index_select(0, &Tensor::from_slice(&ids));
    let mut streams = Vec::new();
    for layer in 0..2 {
        let get = |part: &str| get(&format!("model.layers.{layer}.{part}.weight"));
        let normed = norm(&x, get("input_layernorm"));
        let split = |part: &str, count: i64| {
            let heads_of = normed.matmul(&get(part).tr()).view([tokens, count, dim]).transpose(0, 1);
            heads_of.repeat_interleave_self_int(heads / count, 0, None) // [heads, T, D]
        };
        let (query, key) = (turn(split("self_attn.q_proj", heads)), turn(split("self_attn.k_proj", shared)));
        let future = Tensor::full([tokens, tokens], f64::NEG_INFINITY, (Kind::Double, tch::Device::Cpu)).triu(1);
        let scores = query.matmul(&key.transpose(1, 2)) / (dim as f64).sqrt() + future;
        let mixed = scores.softmax(-1, Kind::Double).matmul(&split("self_attn.v_proj", shared));
        x += mixed.transpose(0, 1).reshape([tokens, heads * dim]).matmul(&get("self_attn.o_proj").tr());
        let normed = norm(&x, get("post_attention_layernorm"));
        let gate = normed.matmul(&get("mlp.gate_proj").tr()).silu();
        x += (gate * normed.matmul(&get("mlp.up_proj").tr())).matmul(&get("mlp.down_proj").tr());
        streams.push(x.copy());
    }
    let logits = norm(&x, get("model.norm.weight")).matmul(&embedding.tr());
    (streams, logits.log_softmax(-1, Kind::Double))
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double)).expect("a vector")
}

/// Masks of the answer's tokens from hidden states of each layer, `[layers][tokens]`, by rule or by the head of this name.
fn plain_masks(streams: &[Vec<Vec<f64>>], heads: Option<(&Weights, &str)>) -> Vec<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let tokens = streams[0].len();
    let Some((heads, name)) = heads else {
        let scaled = |layer: &Vec<Vec<f64>>| -> Vec<f64> {
            let means: Vec<f64> = layer.iter().map(|state| mean(state)).collect();
            let (low, high) = means.iter().fold((f64::MAX, f64::MIN), |(low, high), m| (low.min(*m), high.max(*m)));
            means.iter().map(|m| if high > low { (m - low) / (high - low) } else { 1.0 }).collect()
        };
        let layers: Vec<Vec<f64>> = streams.iter().map(scaled).collect();
        return (0..tokens).map(|t| mean(&layers.iter().map(|layer| layer[t]).collect::<Vec<_>>())).collect();
    };
    let get = |part: &str| numbers(&heads.0[&format!("{name}.{part}")].flatten(0, -1));
    let (weight, bias, mixer) = (get("weight"), get("bias"), get("mixer"));
    let token = |t: usize| {
        let layer = |l: usize| {
            let h = &streams[l][t];
            let (middle, own) = (mean(h), &weight[l * h.len()..]);
            let deviation = (mean(&h.iter().map(|x| (x - middle).powi(2)).collect::<Vec<_>>()) + 1e-6).sqrt();
            let score: f64 = h.iter().zip(own).map(|(x, w)| w * (x - middle) / deviation).sum();
            mixer[l] * (score + bias[l]).max(0.0)
        };
        (layer(0) + layer(1)).max(0.0)
    };
    (0..tokens).map(token).collect()
}

/// The loss of a pair in plain arithmetic.
fn plain_loss(example: &Example, [policy, reference]: [&Weights; 2], heads: Option<(&Weights, [&str; 2])>) -> f64 {
    let side = |answer: &Answer| {
        let ids: Vec<u32> = example.prompt_ids.iter().chain(&answer.token_ids).copied().collect();
        let ((_, p), (streams, q)) = (decode(policy, &ids), decode(reference, &ids));
        let places: Vec<usize> = (example.prompt_ids.len() - 1..ids.len() - 1).collect();
        let at = |layer: &Tensor| places.iter().map(|t| numbers(&layer.get(*t as i64))).collect::<Vec<_>>();
        let streams: Vec<Vec<Vec<f64>>> = streams.iter().map(at).collect();
        let masks = |which: usize| plain_masks(&streams, heads.map(|(weights, names)| (weights, names[which])));
        let (reward, divergence) = (masks(0), masks(1));
        let mut sum = 0.0;
        for (i, t) in places.into_iter().enumerate() {
            let (p, q) = (numbers(&p.get(t as i64)), numbers(&q.get(t as i64)));
            let kl: f64 = q.iter().zip(&p).map(|(q, p)| q.exp() * (q - p)).sum();
            let id = ids[t + 1] as usize;
            sum += reward[i] * (p[id] - q[id]) + divergence[i] * kl;
        }
        (sum, reward.iter().chain(&divergence).sum::<f64>())
    };
    let ((chosen, some), (rejected, more)) = (side(&example.answers[0]), side(&example.answers[1]));
    let share = match heads {
        None => 0.0,
        Some((_, [a, b])) if a == b => 0.5,
        Some(_) => 1.0,
    };
    example.weight * ((-BETA * (chosen - rejected)).exp().ln_1p() + LAMBDA * share * (some + more))
}

#[test]
fn a_steps_loss_is_that_of_plain_arithmetic() {
    let config = tiny_config(VOCAB);
    let reference = tiny_weights(&config, 6);
    for (loss, names) in every_loss().into_iter().zip([None, Some(["mask", "mask"]), Some(["reward", "divergence"])]) {
        let (mut trainer, held) = trainer(loss);
        // Heads that have learned something: some masks are 0.
        if let Some(masks) = &trainer.heads {
            let _no_grad = tch::no_grad_guard();
            for (i, weight) in masks.weights.0.values().enumerate() {
                let waves = (Tensor::arange(weight.numel() as i64, (Kind::Float, tch::Device::Cpu)) + i as f64).sin();
                let _ = weight.shallow_clone().g_add_(&(waves.view_as(weight) * 0.4));
            }
        }
        let policy = trainer.master.weights.snapshot(Kind::Double);
        let heads = trainer.heads.as_ref().map(|masks| masks.weights.snapshot(Kind::Double));
        let prepared = trainer.prepare(&held, vec![(0..8).map(example).collect()]).expect("pairs");
        let metrics = trainer.step(&prepared).expect("finite");
        let heads = heads.as_ref().zip(names);
        let each = (0..8).map(|i| plain_loss(&example(i), [&policy, &reference], heads));
        let expected = each.sum::<f64>() / 8.0;
        assert!((metrics["loss"] - expected).abs() < 2e-5 * expected, "{loss:?}: {} not {expected}", metrics["loss"]);
        let (mean, zero) = (metrics["masks/reward"], metrics["masks/zero"]);
        assert!(mean > 0.05 && (0.0..0.9).contains(&zero) && metrics["masks/kl"] > 0.0, "{loss:?}: {metrics:?}");
    }
}

#[test]
fn a_step_does_not_depend_on_its_micro_batches() {
    for loss in every_loss() {
        let (whole, metrics) = steps(loss, &[8], 3);
        let (first, _) = trainer(loss);
        for sizes in [vec![2; 4], vec![1, 4, 3], vec![1; 8]] {
            let (cut, others) = steps(loss, &sizes, 3);
            for (((_, a), (_, b)), (_, first)) in whole.masters().into_iter().zip(cut.masters()).zip(first.masters()) {
                for (name, weight) in &a.weights.0 {
                    // Of single weights AdamW turns the rounding of a gradient near 0 into a step of its own.
                    let off = (weight - &b.weights.0[name]).norm().double_value(&[]);
                    let moved = (weight - &first.weights.0[name]).norm().double_value(&[]);
                    assert!(off <= 1e-2 * moved, "{loss:?} in {sizes:?} moves {name} by {off} of {moved}");
                }
            }
            for (name, value) in &metrics[2] {
                let off = (others[2][name] - value).abs();
                assert!(off < 1e-4 * value.abs().max(1.0), "{loss:?} in {sizes:?}, {name}: {off}");
            }
        }
    }
}

#[test]
fn heads_begin_as_tdpo_learn_and_come_back_from_a_checkpoint() {
    let (mut trained, metrics) = steps(sparse(2.0), &[8], 12);
    assert_eq!(metrics[0]["masks/reward"], 1.0);
    assert!(metrics[11]["loss"] < 0.7 * metrics[0]["loss"], "{metrics:?}");
    assert!((metrics[11]["masks/reward"] - metrics[11]["masks/divergence"]).abs() > 1e-3, "each learns its own");
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = Checkpoint::write(folder.path(), 1, &trained.masters(), &()).expect("written");
    let (mut restored, reference) = trainer(sparse(2.0));
    checkpoint.read::<()>(&mut restored.masters_mut()).expect("whole");
    let next = |trainer: &mut Trainer| {
        let prepared = trainer.prepare(&reference, vec![(0..8).map(example).collect()]).expect("pairs");
        trainer.step(&prepared).expect("finite")
    };
    assert_eq!(next(&mut trained), next(&mut restored));
    let (mut other, _) = trainer(PairLoss::Mapo { beta: BETA });
    let error = checkpoint.read::<()>(&mut other.masters_mut()).expect_err("refused");
    assert!(error.to_string().contains("it holds 2 models, the run trains 1"), "{error}");
}

#[test]
fn without_a_reference_or_heads_there_are_no_masks() {
    let (mut trainer, reference) = trainer(sparse(1.0));
    let all = || vec![(0..2).map(example).collect()];
    let prepared = trainer.prepare(None, all()).expect("pairs");
    let error = trainer.step(&prepared).expect_err("no reference").to_string();
    assert!(error.contains("sparse_po needs sums over masked tokens"), "{error}");
    trainer.heads = None;
    let prepared = trainer.prepare(&reference, all()).expect("pairs");
    assert!(trainer.step(&prepared).is_err());
}
