//! Losses whose examples are coupled, or are single answers, through the trainer: what a step takes from all of it, and what it refuses.

use joust_core::{Answer, Example, ExampleSource, Finish, Player, Prompt, Rationale, RecordId, Target};
use joust_losses::{PairLoss, SingleLoss};
use joust_model::{Device, Llama, SequenceBatch};
use joust_pairs::{Keep, KeepBy};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{
    Error, Master, Objective, OptimizerParams, Prepared, Reasons, Schedule, ScheduleKind, Settings, StepMetrics,
    Trainer,
};
use tch::{Kind, Tensor};

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
        rationale: None,
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
        Objective::Pair(PairLoss::Dove { beta: 0.3 }),
        Objective::Pair(PairLoss::Cringe { alpha: 0.5, tau: 10.0, margin: -10.0, k: 3.0 }),
        Objective::Pair(PairLoss::LdDpo { beta: 0.3, alpha: 0.3 }),
        Objective::Pair(PairLoss::RewardGap { beta: 0.3, eta: 0.5 }),
        Objective::Single(SingleLoss::Kto { beta: 0.3, desirable_weight: 1.0, undesirable_weight: 0.8 }),
        Objective::Single(SingleLoss::BcoUnpaired { beta: 0.3 }),
        Objective::Single(SingleLoss::Dro { beta: 0.3 }),
    ]
}

fn trainer_of(objective: Objective) -> (Trainer, Llama) {
    let config = tiny_config(VOCAB);
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-3, warmup_steps: 0, total_steps: 100 };
    let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
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
    let (mut trainer, reference) = trainer_of(objective);
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
        let (start, _) = trainer_of(objective);
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
    let (mut trainer, mut reference) = trainer_of(objective);
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
        let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
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
    let (mut trained, _) = trainer_of(simpo);
    let prepared = trained.prepare(None, vec![examples(&simpo)]).expect("it fits");
    let metrics = trained.step(&prepared).expect("finite");
    assert!(metrics["loss"] > 0.0 && !metrics.contains_key("objective/kl"), "{metrics:?}");
    let dpo = Objective::Pair(PairLoss::Dpo { beta: 0.1, label_smoothing: 0.0 });
    let (mut refused, _) = trainer_of(dpo);
    let prepared = refused.prepare(None, vec![examples(&dpo)]).expect("it fits");
    let error = refused.step(&prepared).expect_err("no reference").to_string();
    assert!(error.contains("dpo needs reference log-probabilities"), "{error}");
}

#[test]
fn a_share_of_the_pairs_is_kept_by_what_the_models_say() {
    let objective = Objective::Pair(PairLoss::Dpo { beta: 0.1, label_smoothing: 0.0 });
    let all = examples(&objective);
    let (still, reference) = trainer_of(objective);
    let policy = still.master.model().expect("weights are whole");
    let hidden = |e: &Example, side: usize| {
        // The states at the last prompt token and at all answer tokens but the last.
        let ids: Vec<i64> = e.prompt_ids.iter().chain(&e.answers[side].token_ids).map(|id| i64::from(*id)).collect();
        let states = policy.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).squeeze_dim(0);
        let tokens = e.answers[side].token_ids.len() as i64;
        states.narrow(0, e.prompt_ids.len() as i64 - 1, tokens).sum_dim_intlist(0i64, false, Kind::Double)
            / tokens as f64
    };
    let ratio = |model: &Llama, e: &Example, side: usize| logp(model, &e.prompt_ids, &e.answers[side].token_ids);
    let value = |by: KeepBy, e: &Example| match by {
        KeepBy::Clarity => {
            let mean = |side: usize| ratio(&reference, e, side) / e.answers[side].token_ids.len() as f64;
            mean(1) - mean(0) // highest first
        }
        KeepBy::Margin => {
            let h = |side: usize| ratio(&policy, e, side) - ratio(&reference, e, side);
            (h(0) - h(1)).abs()
        }
        KeepBy::Ches => {
            let (chosen, rejected) = (hidden(e, 0), hidden(e, 1));
            (chosen.dot(&rejected) - chosen.dot(&chosen)).double_value(&[])
        }
    };
    for by in [KeepBy::Clarity, KeepBy::Margin, KeepBy::Ches] {
        let mut expected: Vec<(f64, RecordId)> = all.iter().map(|e| (value(by, e), e.id)).collect();
        expected.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut expected: Vec<RecordId> = expected.into_iter().take(3).map(|(_, id)| id).collect();
        expected.sort();
        for size in [8, 3, 1] {
            let (mut trainer, _) = trainer_of(objective);
            trainer.keep = Some(Keep { by, share: 3.0 / 8.0 });
            let cut = all.chunks(size).map(<[Example]>::to_vec).collect();
            let kept = trainer.prepare(&reference, cut).expect("it fits");
            let mut found: Vec<RecordId> = kept.iter().flatten().map(|prepared| prepared.example.id).collect();
            found.sort();
            assert_eq!(found, expected, "{by:?} in micro-batches of {size}");
            assert_eq!(trainer.step(&kept).expect("finite")["pairs"], 3.0);
        }
    }
}

#[test]
fn wpo_weighs_by_the_policys_own_probabilities() {
    let objective = Objective::Pair(PairLoss::Dpo { beta: 0.1, label_smoothing: 0.0 });
    let all = examples(&objective);
    let (mut trainer, reference) = trainer_of(objective);
    let policy = trainer.master.model().expect("weights are whole");
    let weight = |e: &Example, side: usize| {
        let ids: Vec<i64> = e.prompt_ids.iter().chain(&e.answers[side].token_ids).map(|id| i64::from(*id)).collect();
        let hidden = policy.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).squeeze_dim(0);
        let first = e.prompt_ids.len();
        let mean: f64 = (first..ids.len())
            .map(|at| {
                let p = policy.head(&hidden.get(at as i64 - 1)).softmax(0, Kind::Double);
                p.get(ids[at]).double_value(&[]).ln() - p.square().sum(Kind::Double).double_value(&[]).ln()
            })
            .sum();
        (mean / (ids.len() - first) as f64).exp()
    };
    let weights: Vec<f64> = all.iter().map(|e| weight(e, 0) * weight(e, 1)).collect();
    let loss = |e: &Example| {
        let h = |side: usize| {
            let ids = &e.answers[side].token_ids;
            logp(&policy, &e.prompt_ids, ids) - logp(&reference, &e.prompt_ids, ids)
        };
        (-0.1 * (h(0) - h(1))).exp().ln_1p()
    };
    let expected = all.iter().zip(&weights).map(|(e, weight)| weight * loss(e)).sum::<f64>() / 8.0;
    trainer.wpo = true;
    let cut = all.chunks(3).map(<[Example]>::to_vec).collect();
    let prepared = trainer.prepare(&reference, cut).expect("it fits");
    let metrics = trainer.step(&prepared).expect("finite");
    assert!((metrics["loss"] - expected).abs() < 1e-5, "{expected}: {metrics:?}");
    assert!((metrics["weights/wpo"] - weights.iter().sum::<f64>() / 8.0).abs() < 1e-5, "{weights:?}: {metrics:?}");
}

const DPO: Objective = Objective::Pair(PairLoss::Dpo { beta: 0.3, label_smoothing: 0.0 });

/// A DPO step on the pairs of this file, cut in two.
fn prepared_pairs() -> (Trainer, Vec<Vec<Prepared>>) {
    let (trainer, reference) = trainer_of(DPO);
    let mut examples = examples(&DPO).into_iter();
    let cut = [3, 5].iter().map(|size| examples.by_ref().take(*size).collect()).collect();
    let prepared = trainer.prepare(&reference, cut).expect("it fits");
    (trainer, prepared)
}

#[test]
fn measured_shifts_are_what_a_small_step_does() {
    let (mut trainer, step) = prepared_pairs();
    let metrics = trainer.diagnose(&step).expect("measured");
    let pair = step[0][0].example.clone();
    let logps = |trainer: &Trainer| {
        let model = trainer.master.model().expect("weights are whole");
        [0, 1].map(|k: usize| logp(&model, &pair.prompt_ids, &pair.answers[k].token_ids))
    };
    let before = logps(&trainer);
    // The margin log π(chosen) − log π(rejected) climbs its own gradient.
    let model = trainer.master.model().expect("weights are whole");
    let margin = |answer: usize| {
        SequenceBatch::new(&[(&pair.prompt_ids, &pair.answers[answer].token_ids)], tch::Device::Cpu).logps(&model)
    };
    (margin(0) - margin(1)).sum(Kind::Float).backward();
    let small = 1e-6;
    for weight in trainer.master.weights.0.values_mut().filter(|weight| weight.grad().defined()) {
        let moved = tch::no_grad(|| weight.detach() + small * weight.grad());
        tch::no_grad(|| weight.copy_(&moved));
    }
    let after = logps(&trainer);
    for (side, name) in ["diagnostics/shift_chosen", "diagnostics/shift_rejected"].into_iter().enumerate() {
        let (found, expected) = ((after[side] - before[side]) / small, metrics[name]);
        assert!((found - expected).abs() < 0.02 * expected.abs(), "{name}: {expected}, moved {found}");
    }
    let product = metrics["diagnostics/gradient_product"];
    assert!((metrics["diagnostics/gradient_chosen"] - product - metrics["diagnostics/shift_chosen"]).abs() < 1e-6);
}

#[test]
fn measured_rankings_and_sureness_are_those_of_the_whole_distribution() {
    let (mut trainer, step) = prepared_pairs();
    let metrics = trainer.diagnose(&step).expect("measured");
    let (model, reference) = (trainer.master.model().expect("weights are whole"), trainer_of(DPO).1);
    let (mut ranked, mut ideal, mut masses, mut entropies) = (0.0, 0.0, Vec::new(), Vec::new());
    let mut whole = Vec::new();
    for prepared in &step[0] {
        let example = &prepared.example;
        let own = [0, 1].map(|k: usize| logp(&model, &example.prompt_ids, &example.answers[k].token_ids));
        let held = [0, 1].map(|k: usize| logp(&reference, &example.prompt_ids, &example.answers[k].token_ids));
        ranked += f64::from(u8::from(own[0] > own[1])) / 3.0;
        ideal += f64::from(u8::from(3f64.ln() / 0.3 + held[0] - held[1] > 0.0)) / 3.0;
        // Each next-token distribution alone: all other answers of one token.
        for at in 0..example.answers[0].token_ids.len() {
            let prompt = [example.prompt_ids.as_slice(), &example.answers[0].token_ids[..at]].concat();
            let mut p: Vec<f64> = (0..VOCAB as u32).map(|id| logp(&model, &prompt, &[id]).exp()).collect();
            whole.push(p.iter().map(|p| -p * p.ln()).sum::<f64>());
            p.sort_by(|a, b| b.total_cmp(a));
            let mass: f64 = p[..10].iter().sum();
            masses.push(mass);
            entropies.push(p[..10].iter().map(|p| -(p / mass) * (p / mass).log2()).sum::<f64>());
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let expected = [
        ("top_k_mass", mean(&masses)),
        ("top_k_entropy", mean(&entropies)),
        ("entropy", mean(&whole)),
        ("ranking_accuracy", ranked),
        ("idealised_accuracy", ideal),
    ];
    for (name, expected) in expected {
        let found = metrics[&format!("diagnostics/{name}")];
        assert!((found - expected).abs() < 1e-4, "{name}: {found}, expected {expected}");
    }
}

#[test]
fn measuring_changes_nothing() {
    let (mut plain, step) = prepared_pairs();
    let (mut measured, same) = prepared_pairs();
    measured.diagnose(&same).expect("measured");
    let mut metrics = measured.step(&same).expect("finite");
    assert!(metrics.remove("update_ratio").is_some());
    assert_eq!(plain.step(&step).expect("finite"), metrics);
    assert_eq!(largest_difference(&plain.master, &measured.master), 0.0);
}

/// Takes steps on pairs of which all but the second have a reason; that of the third does not fit the context.
fn reasoned(sizes: &[usize], gamma: f64) -> (Trainer, Vec<StepMetrics>) {
    let (mut trainer, reference) = trainer_of(DPO);
    let encode = |rationale: &Rationale| {
        Ok((ids(rationale.text.len(), 4), ids(rationale.text.len() + 50, reason_tokens(rationale))))
    };
    trainer.reasons = Some(Reasons { gamma, log_sigmoid: false, encode: Box::new(encode) });
    let mut examples = examples(&DPO).into_iter().enumerate().map(|(i, example)| {
        let rationale = Rationale { prompt: Prompt::Text(String::new()), text: "r".repeat(i) };
        Example { rationale: (i != 1).then_some(rationale), ..example }
    });
    let cut = sizes.iter().map(|size| examples.by_ref().take(*size).collect()).collect();
    let prepared = trainer.prepare(&reference, cut).expect("it fits");
    let metrics = (0..3).map(|_| trainer.step(&prepared).expect("finite")).collect();
    (trainer, metrics)
}

fn reason_tokens(rationale: &Rationale) -> usize {
    if rationale.text.len() == 2 { 200 } else { 3 + rationale.text.len() }
}

#[test]
fn reasons_are_trained_beside_the_preference() {
    let (trainer, metrics) = reasoned(&[8], 0.5);
    let (start, _) = trainer_of(DPO);
    let (_, plain) = {
        let (mut plain, reference) = trainer_of(DPO);
        let prepared = plain.prepare(&reference, vec![examples(&DPO)]).expect("it fits");
        let metrics = plain.step(&prepared).expect("finite");
        (plain, metrics)
    };
    let nll = |trainer: &Trainer, i: usize| {
        let model = trainer.master.model().expect("weights are whole");
        -logp(&model, &ids(i, 4), &ids(i + 50, 3 + i)) / (3 + i) as f64
    };
    let with = [0, 3, 4, 5, 6, 7];
    let mean: f64 = with.iter().map(|i| nll(&start, *i)).sum::<f64>() / 8.0;
    assert!((metrics[0]["loss"] - plain["loss"] - 0.5 * mean).abs() < 1e-5, "{mean} {:?} {plain:?}", metrics[0]);
    assert_eq!(metrics[0]["rationales/trained"], 6.0);
    assert!((metrics[0]["rationales/nll"] - mean * 8.0 / 6.0).abs() < 1e-5);
    assert!(with.iter().map(|i| nll(&trainer, *i)).sum::<f64>() < with.iter().map(|i| nll(&start, *i)).sum::<f64>());
    for sizes in [vec![2; 4], vec![1, 4, 3]] {
        let (cut, cut_metrics) = reasoned(&sizes, 0.5);
        assert!(largest_difference(&trainer.master, &cut.master) < 1e-4, "{sizes:?}");
        for (name, value) in &metrics[2] {
            assert!((cut_metrics[2][name] - value).abs() < 1e-4 * value.abs().max(1.0), "{sizes:?} {name}");
        }
    }
}
