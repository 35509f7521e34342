//! Policy gradients through the trainer: independence from micro-batches, the direction of a step, and what they refuse.

use std::collections::BTreeMap;

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_losses::{GradientLoss, ListLoss, PairLoss};
use joust_model::{Device, Llama, SequenceBatch};
use joust_testkit::{tiny_config, tiny_weights};
use joust_train::{Checkpoint, Error, Master, Objective, OptimizerParams, Schedule, ScheduleKind, Settings, Trainer};
use tch::{Kind, Tensor};

const VOCAB: i64 = 40;

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

fn answer(seed: usize, score: Option<f64>) -> Answer {
    let token_ids = ids(seed, 3 + seed % 6);
    let behavior_logprobs = token_ids.iter().map(|id| -3.0 - *id as f32 / 50.0).collect();
    Answer { player: Player::Policy, token_ids, behavior_logprobs, finish: Finish::Eos, score }
}

fn example(i: usize, answers: Vec<Answer>, target: Target) -> Example {
    Example {
        id: RecordId::derive(&[&[i as u8]]),
        prompt_ids: ids(i + 100, 2 + i % 5),
        answers,
        target,
        rationale: None,
        weight: 1.0,
        policy_version: 0,
        source: ExampleSource::Online,
        judge_hash: String::new(),
    }
}

/// Eight prompts: one answer with its opponent's verdict, or three scored answers.
fn examples(loss: &GradientLoss) -> Vec<Example> {
    let build = |i: usize| match loss {
        GradientLoss::NashMd { .. } => example(i, vec![answer(i, None)], Target::Opponent { p: (i % 4) as f64 / 3.0 }),
        _ => {
            let answers = (0..3).map(|k| answer(3 * i + k, Some(((i + k * k) % 5) as f64))).collect();
            example(i, answers, Target::Group { win_rates: vec![0.5; 3] })
        }
    };
    (0..8).map(build).collect()
}

fn every_loss() -> Vec<GradientLoss> {
    let values = BTreeMap::from([
        ("beta", 0.05),
        ("epsilon", 0.2),
        ("epsilon_value", 0.2),
        ("vf_coef", 0.1),
        ("gamma", 1.0),
        ("lambda", 0.95),
    ]);
    let build = |(name, keys): &(&'static str, &'static [&'static str])| {
        let params = keys.iter().map(|key| ((*key).to_owned(), values[key])).collect();
        GradientLoss::from_name(name, &params).expect("its own keys")
    };
    GradientLoss::ALL.iter().map(build).collect()
}

fn trainer(objective: Objective, learning_rate: f64) -> (Trainer, Llama) {
    let config = tiny_config(VOCAB);
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate, warmup_steps: 0, total_steps: 100 };
    let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
    let master = Master::new(&config, &tiny_weights(&config, 5), settings);
    let reference = Llama::new(&config, &tiny_weights(&config, 6)).expect("weights are whole");
    let mut trainer = Trainer::new(master, objective, Device::cpu());
    if let Objective::Gradient(GradientLoss::Ppo { .. }) = objective {
        let scored = config.with_score_head(None);
        trainer.critic = Some(Master::new(&scored, &tiny_weights(&scored, 7), settings));
    }
    (trainer, reference)
}

/// Takes two steps, cut into micro-batches of the given sizes.
fn steps(loss: GradientLoss, sizes: &[usize]) -> (Trainer, f64) {
    let (mut trainer, reference) = trainer(Objective::Gradient(loss), 1e-3);
    let mut examples = examples(&loss).into_iter();
    let cut = sizes.iter().map(|size| examples.by_ref().take(*size).collect()).collect();
    let prepared = trainer.prepare(&reference, cut).expect("it fits");
    trainer.step(&prepared).expect("finite");
    let loss = trainer.step(&prepared).expect("finite")["loss"];
    (trainer, loss)
}

fn largest_difference(a: &Master, b: &Master) -> f64 {
    let difference = |(x, y): (&Tensor, &Tensor)| (x - y).abs().max().double_value(&[]);
    a.weights.0.values().zip(b.weights.0.values()).map(difference).fold(0.0, f64::max)
}

#[test]
fn a_step_does_not_depend_on_its_micro_batches() {
    for loss in every_loss() {
        let (whole, value) = steps(loss, &[8]);
        for sizes in [vec![2; 4], vec![1, 4, 3], vec![1; 8]] {
            let (cut, cut_value) = steps(loss, &sizes);
            let parts = whole.masters().into_iter().zip(cut.masters());
            let difference = parts.map(|((_, a), (_, b))| largest_difference(a, b)).fold(0.0, f64::max);
            // AdamW divides small gradients by themselves: a tenth of a step is rounding, a step is another gradient.
            assert!(difference < 1e-4, "{loss:?} in {sizes:?} moves a weight by {difference}");
            assert!((value - cut_value).abs() < 1e-5, "{loss:?} in {sizes:?}: {cut_value}, whole {value}");
        }
    }
}

/// log π of each answer of an example.
fn logps(trainer: &Trainer, example: &Example) -> Vec<f64> {
    let _no_grad = tch::no_grad_guard();
    let sequences: Vec<(&[u32], &[u32])> =
        example.answers.iter().map(|a| (example.prompt_ids.as_slice(), a.token_ids.as_slice())).collect();
    let batch = SequenceBatch::new(&sequences, tch::Device::Cpu);
    let logps = batch.logps(&trainer.master.model().expect("weights are whole"));
    Vec::try_from(logps.to_kind(Kind::Double)).expect("a vector")
}

#[test]
fn a_step_raises_what_the_judge_prefers() {
    for loss in every_loss() {
        let (mut trainer, reference) = trainer(Objective::Gradient(loss), 1e-3);
        let mut example = match loss {
            GradientLoss::NashMd { .. } => example(1, vec![answer(1, None)], Target::Opponent { p: 1.0 }),
            _ => {
                let answers = vec![answer(1, Some(0.0)), answer(2, Some(3.0)), answer(3, Some(0.0))];
                example(1, answers, Target::Group { win_rates: vec![0.5; 3] })
            }
        };
        let best = example.answers.len() / 2;
        // The sampler is the policy itself, and so is the reference: only the judge pulls.
        let own = Llama::new(&trainer.master.config, &trainer.master.weights).expect("weights are whole");
        drop(reference);
        let before = logps(&trainer, &example);
        for answer in &mut example.answers {
            let batch = SequenceBatch::new(&[(&example.prompt_ids, &answer.token_ids)], tch::Device::Cpu);
            answer.behavior_logprobs = Vec::try_from(batch.token_logprobs(&own).detach()).expect("a vector");
        }
        let prepared = trainer.prepare(&own, vec![vec![example.clone()]]).expect("it fits");
        let metrics = trainer.step(&prepared).expect("finite");
        assert!((metrics["val/ratio"] - 1.0).abs() < 1e-5 && metrics["objective/kl"].abs() < 1e-4, "{metrics:?}");
        let after = logps(&trainer, &example);
        assert!(after[best] > before[best], "{loss:?}: {before:?} {after:?}");
        if best > 0 {
            assert!(after[0] - before[0] < after[best] - before[best], "{loss:?}: {before:?} {after:?}");
        }
    }
}

#[test]
fn lists_do_not_depend_on_micro_batches_and_rank_the_best_higher() {
    for (name, keys, _) in ListLoss::ALL {
        let value = |key: &str| if key == "n" { 1.0 } else { 0.05 };
        let params = keys.iter().map(|key| ((*key).to_owned(), value(key))).collect();
        let loss = ListLoss::from_name(name, &params).expect("its own keys");
        let build = |i: usize| {
            // The best first, and lists of two and of three answers.
            let answers: Vec<Answer> = (0..2 + i % 2).map(|k| answer(3 * i + k, Some(3.0 - k as f64))).collect();
            let win_rates = (0..answers.len()).map(|k| 0.9 - 0.4 * k as f64).collect();
            example(i, answers, Target::Group { win_rates })
        };
        let run = |sizes: &[usize]| {
            let (mut trainer, reference) = trainer(Objective::List(loss), 1e-3);
            let before = logps(&trainer, &build(1));
            let mut examples = (0..8).map(build);
            let cut = sizes.iter().map(|size| examples.by_ref().take(*size).collect()).collect();
            let prepared = trainer.prepare(&reference, cut).expect("it fits");
            (0..3).for_each(|_| drop(trainer.step(&prepared).expect("finite")));
            let moved: Vec<f64> = logps(&trainer, &build(1)).iter().zip(before).map(|(a, b)| a - b).collect();
            (trainer, moved)
        };
        let (whole, moved) = run(&[8]);
        assert!(moved[0] > moved[2], "{name}: {moved:?}");
        for sizes in [vec![3, 5], vec![1; 8]] {
            let difference = largest_difference(&whole.master, &run(&sizes).0.master);
            assert!(difference < 1e-4, "{name} in {sizes:?} moves a weight by {difference}");
        }
    }
}

#[test]
fn a_critic_learns_what_returns_are_and_comes_back_from_a_checkpoint() {
    let ppo = every_loss().into_iter().find(|loss| loss.name() == "ppo").expect("it is there");
    let (mut trained, reference) = trainer(Objective::Gradient(ppo), 3e-3);
    let mut losses = Vec::new();
    for _ in 0..12 {
        let prepared = trained.prepare(&reference, vec![examples(&ppo)]).expect("it fits");
        losses.push(trained.step(&prepared).expect("finite")["loss/value_avg"]);
    }
    assert!(losses[11] < 0.5 * losses[0], "{losses:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = Checkpoint::write(folder.path(), 1, &trained.masters(), &()).expect("written");
    let (mut restored, _) = trainer(Objective::Gradient(ppo), 3e-3);
    checkpoint.read::<()>(&mut restored.masters_mut()).expect("whole");
    for trainer in [&mut trained, &mut restored] {
        let prepared = trainer.prepare(&reference, vec![examples(&ppo)]).expect("it fits");
        trainer.step(&prepared).expect("finite");
    }
    for ((_, a), (_, b)) in trained.masters().into_iter().zip(restored.masters()) {
        assert_eq!(largest_difference(a, b), 0.0, "another critic or policy came back");
    }
    let (mut alone, _) = trainer(Objective::Gradient(every_loss()[0]), 3e-3);
    let error = checkpoint.read::<()>(&mut alone.masters_mut()).expect_err("refused");
    assert!(error.to_string().contains("it holds 2 models, the run trains 1"), "{error}");
}

#[test]
fn averages_follow_the_masters_and_come_back() {
    let (mut trained, reference) = trainer(Objective::Gradient(every_loss()[0]), 1e-2);
    trained.master.keep_average(0.75);
    let mut expected = trained.master.weights.snapshot(Kind::Double);
    for _ in 0..3 {
        let prepared = trained.prepare(&reference, vec![examples(&every_loss()[0])]).expect("it fits");
        trained.step(&prepared).expect("finite");
        for (name, average) in &mut expected.0 {
            *average = &*average * 0.75 + trained.master.weights.0[name].detach() * 0.25;
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = Checkpoint::write(folder.path(), 1, &trained.masters(), &()).expect("written");
    let (mut restored, _) = trainer(Objective::Gradient(every_loss()[0]), 1e-2);
    restored.master.keep_average(0.75);
    checkpoint.read::<()>(&mut restored.masters_mut()).expect("whole");
    for (name, expected) in &expected.0 {
        let average = |trainer: &Trainer| trainer.master.average.as_ref().expect("kept").weights.0[name].copy();
        let difference = (average(&trained) - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{name}: {difference}");
        assert_eq!(average(&trained), average(&restored), "{name}");
    }
}

#[test]
fn examples_of_another_kind_are_refused_by_id() {
    let refused = |objective: Objective, example: Example| {
        let (trainer, reference) = trainer(objective, 1e-3);
        let Err(Error::Example { id, problem }) = trainer.prepare(&reference, vec![vec![example.clone()]]) else {
            panic!("{objective:?} takes {example:?}");
        };
        assert_eq!(id, example.id.to_string());
        problem
    };
    let [nash, rloo] = [0, 1].map(|i: usize| every_loss()[i]);
    let (one, group) = (examples(&nash)[0].clone(), examples(&rloo)[0].clone());
    assert!(refused(Objective::Gradient(nash), group.clone()).contains("nash_md cannot read its target"));
    assert!(refused(Objective::Gradient(rloo), one.clone()).contains("rloo cannot read its target"));
    let pair = Objective::Pair(PairLoss::Ipo { beta: 1.0 });
    assert!(refused(pair, group.clone()).contains("no pair, which the loss ipo needs"));
    let mut unknown = group;
    unknown.answers[1].behavior_logprobs.pop();
    assert!(refused(Objective::Gradient(rloo), unknown).contains("no log-probs of their sampling"));
}
