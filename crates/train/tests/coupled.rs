//! Losses whose examples are coupled, or are single answers, through the trainer: what a step takes from all of it, and what it refuses.

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_losses::{PairLoss, SingleLoss};
use joust_model::{Device, Llama};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{
    AdamWParams, Error, Master, Objective, Schedule, ScheduleKind, SequenceBatch, Settings, StepMetrics, Trainer,
};
use tch::Tensor;

const VOCAB: i64 = 40;
const LABELS: [f64; 3] = [0.9, 0.5, 0.1];

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

fn example(i: usize, answers: usize, target: Target) -> Example {
    let answer = |k: usize| Answer {
        player: Player::Policy,
        token_ids: ids(3 * i + k, 3 + (3 * i + k) % 6),
        behavior_logprobs: Vec::new(),
        finish: Finish::Eos,
        score: Some(LABELS[k] * (i + 1) as f64),
    };
    Example {
        id: RecordId::derive(&[&[i as u8]]),
        prompt_ids: ids(i + 100, 2 + i % 5),
        answers: (0..answers).map(answer).collect(),
        target,
        weight: 1.0,
        policy_version: 0,
        source: ExampleSource::Online,
        judge_hash: String::new(),
    }
}

fn examples(objective: &Objective) -> Vec<Example> {
    let build = |i: usize| match objective {
        Objective::Pair(_) => example(i, 2, Target::Pair { p: 1.0, win_rates: None }),
        _ => example(i, 3, Target::Group { win_rates: LABELS.to_vec() }),
    };
    (0..8).map(build).collect()
}

fn every_objective() -> Vec<Objective> {
    vec![
        Objective::Pair(PairLoss::Aot { beta: 0.3, label_smoothing: 0.1 }),
        Objective::Pair(PairLoss::AotUnpaired { beta: 0.3, label_smoothing: 0.1 }),
        Objective::Pair(PairLoss::LdDpo { beta: 0.3, alpha: 0.3 }),
        Objective::Pair(PairLoss::RewardGap { beta: 0.3, eta: 0.5 }),
        Objective::Single(SingleLoss::Kto { beta: 0.3, desirable_weight: 1.0, undesirable_weight: 0.8 }),
        Objective::Single(SingleLoss::BcoUnpaired { beta: 0.3 }),
        Objective::Single(SingleLoss::Dro { beta: 0.3 }),
    ]
}

fn trainer(objective: Objective) -> (Trainer, Llama) {
    let config = tiny_config(VOCAB);
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-3, warmup_steps: 0, total_steps: 100 };
    let settings = Settings { adamw: AdamWParams::default(), schedule, max_grad_norm: 1.0 };
    let master = Master::new(&config, &tiny_weights(&config, 5), settings);
    let reference = Llama::new(&config, &tiny_weights(&config, 6)).expect("weights are whole");
    let mut trainer = Trainer::new(master, objective, Device::cpu());
    if let Objective::Single(SingleLoss::Dro { .. }) = objective {
        let scored = config.with_score_head(None);
        trainer.critic = Some(Master::new(&scored, &tiny_weights(&scored, 7), settings));
    }
    (trainer, reference)
}

/// Takes three steps, cut into micro-batches of the given sizes.
fn steps(objective: Objective, sizes: &[usize]) -> (Trainer, StepMetrics) {
    let (mut trainer, reference) = trainer(objective);
    let mut examples = examples(&objective).into_iter();
    let cut = sizes.iter().map(|size| examples.by_ref().take(*size).collect()).collect();
    let prepared = trainer.prepare(&reference, cut).expect("it fits");
    let metrics = (0..3).map(|_| trainer.step(&prepared).expect("finite")).last().expect("steps");
    (trainer, metrics)
}

fn largest_difference(a: &Master, b: &Master) -> f64 {
    let difference = |(x, y): (&Tensor, &Tensor)| (x - y).abs().max().double_value(&[]);
    a.weights.0.values().zip(b.weights.0.values()).map(difference).fold(0.0, f64::max)
}

/// log π of a prompt and an answer.
fn logp(model: &Llama, prompt: &[u32], answer: &[u32]) -> f64 {
    let _no_grad = tch::no_grad_guard();
    SequenceBatch::new(&[(prompt, answer)], tch::Device::Cpu).logps(model).double_value(&[0])
}

#[test]
fn a_step_does_not_depend_on_its_micro_batches() {
    for objective in every_objective() {
        let (whole, metrics) = steps(objective, &[8]);
        for sizes in [vec![2; 4], vec![1, 4, 3], vec![1; 8]] {
            let (cut, cut_metrics) = steps(objective, &sizes);
            let parts = whole.masters().into_iter().zip(cut.masters());
            let difference = parts.map(|((_, a), (_, b))| largest_difference(a, b)).fold(0.0, f64::max);
            assert!(difference < 1e-4, "{objective:?} in {sizes:?} moves a weight by {difference}");
            for (name, value) in &metrics {
                let (found, allowed) = (cut_metrics[name], 1e-4 * value.abs().max(1.0));
                assert!((found - value).abs() < allowed, "{objective:?} in {sizes:?}, {name}: {found}, whole {value}");
            }
        }
    }
}

#[test]
fn desirable_answers_rise_against_undesirable_ones() {
    for objective in every_objective().into_iter().filter(|objective| matches!(objective, Objective::Single(_))) {
        let (start, _) = trainer(objective);
        let (trained, _) = steps(objective, &[3, 5]);
        let [before, after] = [&start, &trained].map(|t| t.master.model().expect("weights are whole"));
        let moved = |k: usize| -> f64 {
            let examples = examples(&objective);
            let gain = |e: &Example| {
                let ids = &e.answers[k].token_ids;
                logp(&after, &e.prompt_ids, ids) - logp(&before, &e.prompt_ids, ids)
            };
            examples.iter().map(gain).sum()
        };
        assert!(moved(0) > moved(2), "{objective:?}: {} {}", moved(0), moved(2));
    }
}

#[test]
fn kto_measures_its_baseline_on_the_answers_of_the_next_prompt() {
    let objective = Objective::Single(SingleLoss::Kto { beta: 0.3, desirable_weight: 1.0, undesirable_weight: 1.0 });
    // Policy and reference are swapped if need be, so that the average is above 0.
    let (mut trainer, mut reference) = trainer(objective);
    let examples = examples(&objective);
    let mean = |policy: &Llama, reference: &Llama| {
        let each = examples.iter().zip(examples.iter().cycle().skip(1)).flat_map(|(own, next)| {
            next.answers.iter().map(|answer| {
                logp(policy, &own.prompt_ids, &answer.token_ids) - logp(reference, &own.prompt_ids, &answer.token_ids)
            })
        });
        each.sum::<f64>() / 24.0
    };
    let policy = trainer.master.model().expect("weights are whole");
    let mut expected = mean(&policy, &reference);
    if expected < 0.0 {
        let config = tiny_config(VOCAB);
        let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-3, warmup_steps: 0, total_steps: 1 };
        let settings = Settings { adamw: AdamWParams::default(), schedule, max_grad_norm: 1.0 };
        trainer.master = Master::new(&config, &tiny_weights(&config, 6), settings);
        reference = Llama::new(&config, &tiny_weights(&config, 5)).expect("weights are whole");
        expected = -expected;
    }
    let cut = examples.chunks(3).map(<[Example]>::to_vec).collect();
    let prepared = trainer.prepare(&reference, cut).expect("it fits");
    let metrics = trainer.step(&prepared).expect("finite");
    assert!(expected > 0.01 && (metrics["rewards/baseline"] - expected).abs() < 1e-4, "{expected}: {metrics:?}");

    let one = trainer.prepare(&reference, vec![vec![examples[0].clone()]]).expect("said later");
    let Err(Error::Example { id, problem }) = trainer.step(&one) else { panic!("one prompt is refused") };
    assert!(id == examples[0].id.to_string() && problem.contains("raise learner.prompts_per_step"), "{problem}");
}

#[test]
fn without_a_reference_only_losses_that_read_none_are_trained() {
    let simpo = Objective::Pair(PairLoss::Simpo { beta: 2.0, gamma: 0.5 });
    let (mut trained, _) = trainer(simpo);
    let prepared = trained.prepare(None, vec![examples(&simpo)]).expect("it fits");
    let metrics = trained.step(&prepared).expect("finite");
    assert!(metrics["loss"] > 0.0 && !metrics.contains_key("objective/kl"), "{metrics:?}");
    let dpo = Objective::Pair(PairLoss::Dpo { beta: 0.1, label_smoothing: 0.0 });
    let (mut refused, _) = trainer(dpo);
    let prepared = refused.prepare(None, vec![examples(&dpo)]).expect("it fits");
    let error = refused.step(&prepared).expect_err("no reference").to_string();
    assert!(error.contains("dpo needs reference log-probabilities"), "{error}");
}
