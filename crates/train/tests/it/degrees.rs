//! SPO through the trainer: a step's loss against plain arithmetic on padded sequences, micro-batches, a head that learns, and what it lacks.

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_losses::PairLoss;
use joust_model::{Device, Llama, sequence_states};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{
    Master, Objective, OptimizerParams, Ranks, Schedule, ScheduleKind, Settings, StepMetrics, Trainer, heads,
};
use tch::{Kind, Tensor};

const VOCAB: i64 = 40;
const BETA: f64 = 0.3;
const LAMBDA: f64 = 0.5;
const DEGREES: usize = 3;
const SPO: PairLoss = PairLoss::Spo { beta: BETA, lambda: LAMBDA, degrees: DEGREES as f64 };

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

fn example(i: usize) -> Example {
    let answer = |side: usize| Answer {
        player: Player::Policy,
        token_ids: ids(i * 2 + side, 1 + (i * 5 + side * 2) % 9),
        behavior_logprobs: Vec::new(),
        finish: if i.is_multiple_of(3) { Finish::Length } else { Finish::Eos },
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

fn trainer() -> (Trainer, Llama) {
    let (config, objective) = (tiny_config(VOCAB), Objective::Pair(SPO));
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 3e-3, warmup_steps: 0, total_steps: 100 };
    let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
    let mut trainer = Trainer::new(Master::new(&config, &tiny_weights(&config, 5), settings), objective, Device::cpu());
    trainer.heads = heads(&objective, &config, settings, (Ranks::default(), tch::Device::Cpu)).expect("alone");
    (trainer, Llama::new(&config, &tiny_weights(&config, 6)).expect("weights are whole"))
}

fn steps(sizes: &[usize], count: usize) -> (Trainer, Vec<StepMetrics>) {
    let (mut trainer, reference) = trainer();
    let mut examples = (0..8).map(example);
    let cut = sizes.iter().map(|size| examples.by_ref().take(*size).collect()).collect();
    let prepared = trainer.prepare(&reference, cut).expect("pairs");
    let metrics = (0..count).map(|_| trainer.step(&prepared).expect("finite")).collect();
    (trainer, metrics)
}

/// log π of each token of an answer, from the whole padded path.
fn logprobs(model: &Llama, prompt: &[u32], answer: &[u32]) -> Vec<f64> {
    let row = |t: usize| {
        let state = sequence_states(model, &[[prompt, &answer[..t]].concat()]);
        model.head(&state).to_kind(Kind::Double).log_softmax(-1, Kind::Double).double_value(&[0, i64::from(answer[t])])
    };
    (0..answer.len()).map(row).collect()
}

/// The rule in other words: what is left when the `count` least probable tokens before the EOS are gone.
fn without(tokens: &[u32], surprise: &[f64], (count, body): (usize, usize)) -> Vec<u32> {
    let rank = |at: usize| {
        (0..body).filter(|b| surprise[*b] < surprise[at] || (surprise[*b] == surprise[at] && *b < at)).count()
    };
    (0..tokens.len()).filter(|at| *at >= body || rank(*at) >= count).map(|at| tokens[at]).collect()
}

/// ½ the mean cross-entropy of an answer's versions.
fn told(policy: &Llama, [prompt, tokens]: [&[u32]; 2], (surprise, eos): (&[f64], bool), head: [&Tensor; 2]) -> f64 {
    let body = tokens.len() - usize::from(eos);
    let content = body.div_ceil(2).min(tokens.len() - 1);
    let mut seen = Vec::new();
    let mut losses = Vec::new();
    for degree in 0..=DEGREES {
        let count = (degree as f64 * content as f64 / DEGREES as f64).round() as usize;
        if seen.contains(&count) {
            continue;
        }
        seen.push(count);
        let version = [prompt, &without(tokens, surprise, (count, body))].concat();
        let state = sequence_states(policy, &[version]).to_kind(Kind::Double);
        let logits = state.matmul(&head[0].to_kind(Kind::Double).tr()) + head[1].to_kind(Kind::Double);
        losses.push(-logits.log_softmax(-1, Kind::Double).double_value(&[0, degree as i64]));
    }
    0.5 * losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn a_steps_loss_is_that_of_plain_arithmetic() {
    let (mut trainer, reference) = trainer();
    let head = trainer.heads.as_ref().expect("SPO has one").weights.snapshot(Kind::Float);
    for (i, name) in ["degree.weight", "degree.bias"].into_iter().enumerate() {
        let _no_grad = tch::no_grad_guard();
        let own = &trainer.heads.as_ref().expect("SPO has one").weights.0[name];
        let waves = (Tensor::arange(own.numel() as i64, (Kind::Float, tch::Device::Cpu)) + i as f64).sin() * 0.3;
        let _ = own.shallow_clone().g_add_(&waves.view_as(own));
        let _ = head.0[name].shallow_clone().g_add_(&waves.view_as(own));
    }
    let policy = trainer.master.model().expect("whole");
    let expected: f64 = (0..8)
        .map(|i| {
            let example = example(i);
            let sides = [0, 1].map(|side: usize| {
                let answer = &example.answers[side];
                let ids = [example.prompt_ids.as_slice(), answer.token_ids.as_slice()];
                let held = logprobs(&reference, ids[0], ids[1]);
                let ratio = logprobs(&policy, ids[0], ids[1]).iter().sum::<f64>() - held.iter().sum::<f64>();
                let eos = answer.finish == Finish::Eos;
                (ratio, told(&policy, ids, (&held, eos), [&head.0["degree.weight"], &head.0["degree.bias"]]))
            });
            let margin = BETA * (sides[0].0 - sides[1].0);
            example.weight * ((-margin).exp().ln_1p() + LAMBDA * (sides[0].1 + sides[1].1))
        })
        .sum::<f64>()
        / 8.0;
    drop(policy);
    let prepared = trainer.prepare(&reference, vec![(0..8).map(example).collect()]).expect("pairs");
    let metrics = trainer.step(&prepared).expect("finite");
    assert!((metrics["loss"] - expected).abs() < 2e-5 * expected, "{} not {expected}", metrics["loss"]);
    assert!(metrics["degree/loss"] > 0.5 && (0.0..=1.0).contains(&metrics["degree/accuracy"]), "{metrics:?}");
}

#[test]
fn a_step_does_not_depend_on_its_micro_batches() {
    let (whole, metrics) = steps(&[8], 3);
    for sizes in [vec![2; 4], vec![1, 4, 3]] {
        let (cut, others) = steps(&sizes, 3);
        for ((_, a), (_, b)) in whole.masters().into_iter().zip(cut.masters()) {
            for (name, weight) in &a.weights.0 {
                let off = (weight - &b.weights.0[name]).abs().max().double_value(&[]);
                assert!(off < 2e-4, "{sizes:?} moves {name} by {off}");
            }
        }
        for (name, value) in &metrics[2] {
            let off = (others[2][name] - value).abs();
            assert!(off < 1e-4 * value.abs().max(1.0), "{sizes:?}, {name}: {off}");
        }
    }
}

#[test]
fn the_head_learns_to_tell() {
    let (_, metrics) = steps(&[8], 40);
    let (first, last) = (&metrics[0], &metrics[39]);
    assert!((first["degree/loss"] - 4f64.ln()).abs() < 1e-5, "it finds all four as likely: {first:?}");
    assert!(last["degree/accuracy"] > 0.8 && last["degree/accuracy"] > first["degree/accuracy"] + 0.2, "{last:?}");
}

#[test]
fn without_a_reference_or_a_head_it_is_refused_by_name() {
    let (mut trainer, reference) = trainer();
    let all = || vec![(0..2).map(example).collect()];
    trainer.heads = None;
    let prepared = trainer.prepare(&reference, all()).expect("pairs");
    let error = trainer.step(&prepared).expect_err("no head").to_string();
    assert!(error.contains("spo needs the degree head's loss"), "{error}");
    let prepared = trainer.prepare(None, all()).expect("pairs");
    let error = trainer.step(&prepared).expect_err("no reference").to_string();
    assert!(error.contains("spo needs"), "{error}");
}
