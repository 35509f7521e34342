//! Steps of the trainer: independence from micro-batches, float32 masters under a bfloat16 model, supervised steps, and what a
//! checkpoint brings back.

use std::fs;

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_losses::PairLoss;
use joust_model::{Device, Dtype, Llama, ModelConfig};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{
    AdafactorParams, AdamWParams, Checkpoint, Error, Master, Objective, OptimizerParams, Prepared, RmsPropParams,
    Schedule, ScheduleKind, Settings, Trainer, latest, sft_step,
};
use tch::{Kind, Tensor};

const VOCAB: i64 = 40;

fn settings(learning_rate: f64) -> Settings {
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate, warmup_steps: 0, total_steps: 100 };
    Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 }
}

fn master(config: &ModelConfig, learning_rate: f64) -> Master {
    Master::new(config, &tiny_weights(config, 5), settings(learning_rate))
}

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

fn example(i: usize) -> Example {
    let answer = |side: usize| Answer {
        player: Player::Policy,
        token_ids: ids(i * 2 + side, 3 + (i * 5 + side * 2) % 7),
        behavior_logprobs: Vec::new(),
        finish: Finish::Length,
        score: None,
    };
    Example {
        id: RecordId::derive(&[&[i as u8]]),
        prompt_ids: ids(i + 100, 2 + i % 5),
        answers: vec![answer(0), answer(1)],
        target: Target::Pair { p: if i.is_multiple_of(3) { 0.8 } else { 1.0 }, win_rates: None },
        rationale: None,
        weight: 1.0 + i as f64 / 8.0,
        policy_version: 0,
        source: ExampleSource::Online,
        judge_hash: String::new(),
    }
}

/// Takes two steps on eight pairs, cut into micro-batches of the given sizes.
fn pair_steps(sizes: &[usize]) -> (Trainer, f64) {
    let config = tiny_config(VOCAB);
    let loss = PairLoss::Dpo { beta: 0.3, label_smoothing: 0.0 };
    let mut trainer = Trainer::new(master(&config, 1e-3), Objective::Pair(loss), Device::cpu());
    let reference = Llama::new(&config, &tiny_weights(&config, 6)).expect("weights are whole");
    let mut examples = (0..8).map(example);
    let cut = sizes.iter().map(|size| examples.by_ref().take(*size).collect()).collect();
    let prepared: Vec<Vec<Prepared>> = trainer.prepare(&reference, cut).expect("pairs");
    let first = trainer.step(&prepared).expect("finite")["loss"];
    let second = trainer.step(&prepared).expect("finite")["loss"];
    assert!(second < first, "the loss rises from {first} to {second}");
    (trainer, second)
}

fn largest_difference(a: &Master, b: &Master) -> f64 {
    let difference = |(x, y): (&Tensor, &Tensor)| (x - y).abs().max().double_value(&[]);
    a.weights.0.values().zip(b.weights.0.values()).map(difference).fold(0.0, f64::max)
}

#[test]
fn a_step_does_not_depend_on_its_micro_batches() {
    let (whole, loss) = pair_steps(&[8]);
    for sizes in [vec![2; 4], vec![1, 4, 3], vec![1; 8]] {
        let (cut, cut_loss) = pair_steps(&sizes);
        let difference = largest_difference(&whole.master, &cut.master);
        assert!(difference < 1e-5, "{sizes:?} moves a weight by {difference}");
        assert!((loss - cut_loss).abs() < 1e-5, "{sizes:?}: loss {cut_loss}, whole {loss}");
    }
}

#[test]
fn the_same_step_gives_the_same_bits() {
    let (a, b) = (pair_steps(&[4, 4]).0, pair_steps(&[4, 4]).0);
    assert_eq!(largest_difference(&a.master, &b.master), 0.0);
}

fn corpus() -> Vec<(Vec<u32>, Vec<u32>)> {
    (0..6).map(|i| (ids(i, 3), ids(i + 50, 6))).collect()
}

fn sft(master: &mut Master, micro: usize) -> f64 {
    let corpus = corpus();
    let pairs: Vec<(&[u32], &[u32])> = corpus.iter().map(|(p, c)| (p.as_slice(), c.as_slice())).collect();
    sft_step(master, &pairs, micro, &Device::cpu()).expect("finite").0
}

#[test]
fn supervised_steps_lower_the_loss() {
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let mut master = master(&tiny_config(VOCAB).with_dtype(dtype), 1e-2);
        let losses: Vec<f64> = (0..12).map(|_| sft(&mut master, 4)).collect();
        assert!(losses[11] < 0.5 * losses[0], "{dtype:?}: {losses:?}");
    }
}

#[test]
fn a_supervised_step_does_not_depend_on_its_micro_batches() {
    let config = tiny_config(VOCAB);
    let (mut whole, mut cut) = (master(&config, 1e-3), master(&config, 1e-3));
    assert!((sft(&mut whole, 6) - sft(&mut cut, 2)).abs() < 1e-5);
    assert!(largest_difference(&whole, &cut) < 1e-5);
}

#[test]
fn a_bfloat16_model_keeps_float32_masters() {
    let config = tiny_config(VOCAB).with_dtype(Dtype::Bfloat16);
    let mut master = master(&config, 1e-7);
    let before = master.weights.snapshot(Kind::Float);
    for _ in 0..3 {
        sft(&mut master, 6);
    }
    for (name, weight) in &master.weights.0 {
        assert_eq!(weight.kind(), Kind::Float, "{name}");
    }
    // 3e-7 is far below what bfloat16 can add to a weight near 0.1, and yet every matrix has moved.
    let name = "model.layers.0.mlp.down_proj.weight";
    let moved = (&master.weights.0[name] - &before.0[name]).abs().max().double_value(&[]);
    assert!(moved > 1e-7 && moved < 1e-6, "{moved}");
}

/// Scores that the master's model gives, against those of a fresh model on the masters rounded to its kind.
fn computes_with_its_masters(master: &Master) {
    let ids = Tensor::from_slice(&[3i64, 9, 4, 30, 12]).unsqueeze(0);
    let _no_grad = tch::no_grad_guard();
    let rounded = master.weights.snapshot(master.config.dtype.kind());
    let fresh = Llama::new(&master.config, &rounded).expect("weights are whole");
    assert_eq!(master.model().expect("weights are whole").hidden(&ids), fresh.hidden(&ids));
}

#[test]
fn the_model_computes_with_the_masters_after_steps_and_after_a_restore() {
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let config = tiny_config(VOCAB).with_dtype(dtype);
        let mut trained = master(&config, 1e-2);
        computes_with_its_masters(&trained);
        sft(&mut trained, 6);
        computes_with_its_masters(&trained);
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint = Checkpoint::write(folder.path(), 1, &[("", &trained)], &()).expect("written");
        let mut restored = Master::new(&config, &tiny_weights(&config, 77), settings(1e-2));
        checkpoint.read::<()>(&mut [("", &mut restored)]).expect("whole");
        computes_with_its_masters(&restored);
        sft(&mut trained, 6);
        sft(&mut restored, 6);
        assert_eq!(largest_difference(&trained, &restored), 0.0, "{dtype:?} goes on with other bits");
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let config = tiny_config(VOCAB);
    let mut trained = master(&config, 1e-2);
    let folder = tempfile::tempdir().expect("a folder");
    sft(&mut trained, 6);
    Checkpoint::write(folder.path(), 1, &[("", &trained)], &"one").expect("written");
    let first = trained.weights.snapshot(Kind::Float);
    sft(&mut trained, 6);
    let newest = Checkpoint::write(folder.path(), 2, &[("", &trained)], &"two").expect("written");

    let file = newest.path.join("shard-0.safetensors");
    let mut bytes = fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).expect("writable");
    let mut restored = Master::new(&config, &tiny_weights(&config, 77), settings(1e-2));
    let restored_from = latest::<String>(folder.path(), &mut [("", &mut restored)]).expect("one is whole");
    let passed_over = restored_from.damaged;
    let (checkpoint, state) = restored_from.found.expect("one is whole");
    assert_eq!((checkpoint.step, state.as_str(), restored.optimizer.updates), (1, "one", 1));
    for (name, weight) in &restored.weights.0 {
        assert_eq!(*weight, first.0[name], "{name}");
    }
    let [Error::Checkpoint { path, reason }] = passed_over.as_slice() else { panic!("{passed_over:?}") };
    assert_eq!(*path, newest.path);
    assert!(reason.contains("hash"), "{reason}");

    fs::remove_file(&file).expect("removable");
    fs::write(checkpoint.path.join("manifest.json"), "{").expect("writable");
    let error = latest::<String>(folder.path(), &mut [("", &mut restored)]).expect_err("none is whole");
    assert!(error.to_string().contains("checkpoint-1"), "{error}");
}

#[test]
fn every_optimizer_lowers_the_loss_and_goes_on_from_a_checkpoint() {
    let optimizers = [
        (OptimizerParams::AdamW(AdamWParams { weight_decay: 0.1, ..AdamWParams::default() }), 1e-2),
        (OptimizerParams::RmsProp(RmsPropParams::default()), 1e-3),
        (OptimizerParams::Adafactor(AdafactorParams { weight_decay: 0.1, ..AdafactorParams::default() }), 1e-2),
    ];
    for (optimizer, learning_rate) in optimizers {
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            let config = tiny_config(VOCAB).with_dtype(dtype);
            let settings = Settings { optimizer, ..settings(learning_rate) };
            let mut trained = Master::new(&config, &tiny_weights(&config, 5), settings);
            let losses: Vec<f64> = (0..8).map(|_| sft(&mut trained, 6)).collect();
            assert!(losses[7] < losses[0], "{optimizer:?}: {losses:?}");
            let folder = tempfile::tempdir().expect("a folder");
            let checkpoint = Checkpoint::write(folder.path(), 8, &[("", &trained)], &()).expect("written");
            assert!(checkpoint.verify().expect("whole") > 0);
            let policy = checkpoint.policy().expect("whole");
            assert!(trained.weights.0.iter().all(|(name, weight)| *weight == policy.0[name]));
            let mut restored = Master::new(&config, &tiny_weights(&config, 77), settings);
            checkpoint.read::<()>(&mut [("", &mut restored)]).expect("whole");
            computes_with_its_masters(&restored);
            sft(&mut trained, 6);
            sft(&mut restored, 6);
            assert_eq!(largest_difference(&trained, &restored), 0.0, "{optimizer:?} in {dtype:?}");
        }
    }
}
