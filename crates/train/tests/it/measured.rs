//! What a step tells of itself, against the same figures computed apart, and what becomes of a step that is not finite.

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_losses::PairLoss;
use joust_model::{Device, Llama, SequenceBatch, Weights};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{
    Error, Master, Objective, OptimizerParams, Prepared, RmsPropParams, Schedule, ScheduleKind, Settings, Trainer,
};
use tch::Kind;

const VOCAB: i64 = 40;

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

fn example(i: usize) -> Example {
    let answer = |k: usize| {
        let token_ids = ids(2 * i + k, 3 + (2 * i + k) % 6);
        let behavior_logprobs = token_ids.iter().map(|id| -3.0 - *id as f32 / 50.0).collect();
        Answer { player: Player::Policy, token_ids, behavior_logprobs, finish: Finish::Eos, score: None }
    };
    Example {
        id: RecordId::derive(&[&i.to_le_bytes()]),
        prompt_ids: ids(i + 100, 2 + i % 5),
        answers: vec![answer(0), answer(1)],
        target: Target::Pair { p: 1.0, win_rates: None },
        rationale: None,
        weight: 1.0,
        policy_version: 0,
        source: ExampleSource::Online,
        judge_hash: String::new(),
    }
}

fn trainer(optimizer: OptimizerParams) -> (Trainer, Llama) {
    let config = tiny_config(VOCAB);
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-3, warmup_steps: 0, total_steps: 100 };
    let settings = Settings { optimizer, schedule, max_grad_norm: 1.0 };
    let master = Master::new(&config, &tiny_weights(&config, 5), settings);
    let reference = Llama::new(&config, &tiny_weights(&config, 6)).expect("weights are whole");
    let dpo = Objective::Pair(PairLoss::Dpo { beta: 0.3, label_smoothing: 0.0 });
    (Trainer::new(master, dpo, Device::cpu()), reference)
}

fn step(trainer: &Trainer, reference: &Llama) -> Vec<Vec<Prepared>> {
    trainer.prepare(reference, vec![(0..3).map(example).collect(), (3..5).map(example).collect()]).expect("it fits")
}

fn squares(weights: &Weights, minus: Option<&Weights>) -> f64 {
    let of = |(name, weight): (&String, &tch::Tensor)| {
        let weight = minus.map_or_else(|| weight.detach(), |minus| weight.detach() - &minus.0[name]);
        weight.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[])
    };
    weights.0.iter().map(of).sum()
}

#[test]
fn a_measured_update_tells_by_how_much_the_weights_moved() {
    for optimizer in [OptimizerParams::default(), OptimizerParams::RmsProp(RmsPropParams::default())] {
        let (mut measured, reference) = trainer(optimizer);
        let (mut other, _) = trainer(optimizer);
        let before = measured.master.weights.snapshot(Kind::Float);
        let prepared = step(&measured, &reference);
        measured.diagnose(&prepared).expect("measured");
        let metrics = measured.step(&prepared).expect("finite");
        let expected = (squares(&measured.master.weights, Some(&before)) / squares(&before, None)).sqrt();
        assert!((metrics["update_ratio"] - expected).abs() < 1e-6 * expected, "{expected}: {metrics:?}");
        assert!(!other.step(&prepared).expect("finite").contains_key("update_ratio"));
        assert_eq!(squares(&measured.master.weights, Some(&other.master.weights)), 0.0, "measuring changes nothing");
    }
}

#[test]
fn the_mismatch_is_the_divergence_from_what_sampled() {
    let (mut trainer, reference) = trainer(OptimizerParams::default());
    let model = trainer.master.model().expect("weights are whole");
    let prepared = step(&trainer, &reference);
    let mut terms = Vec::new();
    for example in prepared.iter().flatten().map(|prepared| &prepared.example) {
        for answer in &example.answers {
            let sequences = SequenceBatch::new(&[(&example.prompt_ids, &answer.token_ids)], tch::Device::Cpu);
            let own = Vec::<f32>::try_from(sequences.token_logprobs(&model).detach()).expect("floats");
            terms.extend(own.iter().zip(&answer.behavior_logprobs).map(|(own, behavior)| {
                let ratio = f64::from(own - behavior).exp();
                ratio - 1.0 - ratio.ln()
            }));
        }
    }
    let expected = terms.iter().sum::<f64>() / terms.len() as f64;
    let metrics = trainer.step(&prepared).expect("finite");
    assert!((metrics["sampling/mismatch_kl"] - expected).abs() < 1e-5, "{expected}: {metrics:?}");
}

#[test]
fn a_step_that_is_not_finite_ends_training_or_is_left_out() {
    let (mut trainer, reference) = trainer(OptimizerParams::default());
    let before = trainer.master.weights.snapshot(Kind::Float);
    let mut prepared = step(&trainer, &reference);
    prepared[1][0].example.weight = f64::NAN;
    let error = trainer.step(&prepared).expect_err("not finite");
    assert!(matches!(error, Error::LossNotFinite { .. }) && error.to_string().contains("learner.on_nan"), "{error}");
    trainer.skip_not_finite = true;
    let metrics = trainer.step(&prepared).expect("left out");
    assert_eq!(metrics["steps/skipped"], 1.0);
    assert_eq!(squares(&trainer.master.weights, Some(&before)), 0.0);
    assert_eq!(trainer.master.optimizer.updates, 0);
    prepared[1][0].example.weight = 1.0;
    assert!(!trainer.step(&prepared).expect("finite").contains_key("steps/skipped"));
    assert_eq!(trainer.master.optimizer.updates, 1);
}

#[test]
fn throughput_counts_tokens_and_operations() {
    let (mut trainer, reference) = trainer(OptimizerParams::default());
    let prepared = step(&trainer, &reference);
    let tokens: usize = (0..5)
        .map(example)
        .map(|e| e.answers.iter().map(|answer| e.prompt_ids.len() + answer.token_ids.len()).sum::<usize>())
        .sum();
    let found = trainer.throughput(&prepared, 2, std::time::Duration::from_secs(4)).expect("alone");
    assert_eq!(found["throughput/train_tokens_per_s"], 2.0 * tokens as f64 / 4.0);
    assert!(found["throughput/mfu"] > 0.0 && found["throughput/mfu"] < 1.0, "{found:?}");
}
