//! A step on several ranks is the step of one: losses, gradients and weights, statistics of the step, failures.

use std::path::{Path, PathBuf};

use joust_core::{Answer, Example, ExampleSource, Finish, Player, Prompt, Rationale, RecordId, Target};
use joust_losses::{GradientLoss, ListLoss, PairLoss, SingleLoss};
use joust_model::{Device, Dtype, Llama};
use joust_pairs::{Keep, KeepBy};
use joust_testkit::{
    ranks::{Rank, run, run_failing, tell},
    tiny_config, tiny_weights,
};
use joust_torch::ProcessGroup;
use joust_train::{
    AdafactorParams, Checkpoint, Master, Objective, OptimizerParams, Ranks, Reasons, Schedule, ScheduleKind, Settings,
    StepMetrics, Trainer, heads,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

const VOCAB: i64 = 40;
const LABELS: [f64; 3] = [0.9, 0.5, 0.1];

/// What a rank is to do, as one text.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    /// Which of [`objectives`].
    objective: usize,
    /// Examples of a step.
    examples: usize,
    /// Examples of a micro-batch.
    micro_batch: usize,
    steps: usize,
    bfloat16: bool,
    /// Smallest bucket of gradients, in elements: the model has about 30 thousand.
    bucket: i64,
    /// The rank whose first example has no tokens.
    broken: Option<usize>,
    optimizer: Which,
    /// The rank whose first example has a weight that is no number, and whether the step is then left out.
    not_finite: Option<(usize, bool)>,
    /// Where to begin from, and which step that is.
    from: Option<(PathBuf, usize)>,
    /// Where to leave a checkpoint at the end.
    into: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Which {
    AdamW,
    Adafactor,
}

impl Which {
    fn params(self) -> OptimizerParams {
        match self {
            Self::AdamW => OptimizerParams::default(),
            Self::Adafactor => OptimizerParams::Adafactor(AdafactorParams::default()),
        }
    }
}

/// What a rank found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Found {
    metrics: Vec<StepMetrics>,
    /// BLAKE3 of all weights, hexadecimal.
    weights: String,
    /// Elements of the masters, which gradients and moments have too, that this rank keeps.
    kept: usize,
    error: Option<String>,
}

/// Losses, and whether they, the share of the pairs that is kept, or reasons beside them, look at a whole step.
fn objectives() -> Vec<Objective> {
    vec![
        Objective::Pair(PairLoss::Dpo { beta: 0.3, label_smoothing: 0.0 }),
        Objective::Pair(PairLoss::Aot { beta: 0.3, label_smoothing: 0.1 }),
        Objective::Pair(PairLoss::AotUnpaired { beta: 0.3, label_smoothing: 0.1 }),
        Objective::Pair(PairLoss::Dove { beta: 0.3 }),
        Objective::Single(SingleLoss::Kto { beta: 0.3, desirable_weight: 1.0, undesirable_weight: 0.8 }),
        Objective::Single(SingleLoss::BcoUnpaired { beta: 0.3 }),
        Objective::Single(SingleLoss::Dro { beta: 0.3 }),
        Objective::Gradient(GradientLoss::ReinforcePlusPlus { beta: 0.05, epsilon: 0.2 }),
        Objective::Gradient(GradientLoss::Ppo {
            beta: 0.05,
            epsilon: 0.2,
            epsilon_value: 0.2,
            vf_coef: 0.1,
            gamma: 1.0,
            lambda: 0.95,
        }),
        Objective::List(ListLoss::ListMle { beta: 0.3 }),
        // With a share of the pairs, and with reasons.
        Objective::Pair(PairLoss::Ipo { beta: 0.5 }),
        Objective::Pair(PairLoss::Hinge { beta: 0.3 }),
        // With heads that are trained beside the policy.
        Objective::Pair(PairLoss::SparsePo { beta: 0.3, lambda: 0.01, heads: 2.0, mask_decay: 0.01 }),
        Objective::Pair(PairLoss::Spo { beta: 0.3, lambda: 0.2, degrees: 2.0 }),
    ]
}

fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| ((seed * 13 + i * i * 7 + i * 3) % 37 + 3) as u32).collect()
}

fn example(objective: &Objective, i: usize) -> Example {
    let (count, target) = match objective {
        Objective::Pair(_) => (2, Target::Pair { p: 1.0, win_rates: None }),
        _ => (3, Target::Group { win_rates: LABELS.to_vec() }),
    };
    let answer = |k: usize| {
        let token_ids = ids(3 * i + k, 3 + (3 * i + k) % 6);
        let behavior_logprobs = token_ids.iter().map(|id| -3.0 - *id as f32 / 50.0).collect();
        let score = Some(LABELS[k] * (i % 7 + 1) as f64);
        Answer { player: Player::Policy, token_ids, behavior_logprobs, finish: Finish::Eos, score }
    };
    Example {
        id: RecordId::derive(&[&i.to_le_bytes()]),
        prompt_ids: ids(i + 100, 2 + i % 5),
        answers: (0..count).map(answer).collect(),
        target,
        rationale: Some(Rationale { prompt: Prompt::Text(String::new()), text: "r".repeat(i % 5) }),
        weight: 1.0,
        policy_version: 0,
        source: ExampleSource::Online,
        judge_hash: String::new(),
    }
}

fn trainer(task: &Task, ranks: Ranks) -> (Trainer, Llama) {
    let objective = objectives()[task.objective];
    let mut config = tiny_config(VOCAB);
    if task.bfloat16 {
        config.dtype = Dtype::Bfloat16;
    }
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-3, warmup_steps: 0, total_steps: 100 };
    let settings = Settings { optimizer: task.optimizer.params(), schedule, max_grad_norm: 1.0 };
    let master = Master::on(ranks.clone(), &config, &tiny_weights(&config, 5), settings).expect("the group takes it");
    let frozen = tiny_weights(&config, 6).snapshot(config.dtype.kind());
    let reference = Llama::new(&config, &frozen).expect("weights are whole");
    let mut trainer = Trainer::new(master, objective, Device::cpu());
    trainer.heads =
        heads(&objective, &config, settings, (ranks.clone(), tch::Device::Cpu)).expect("the group takes it");
    match objective {
        Objective::Single(SingleLoss::Dro { .. }) | Objective::Gradient(GradientLoss::Ppo { .. }) => {
            let scored = config.with_score_head(None);
            let critic = Master::on(ranks, &scored, &tiny_weights(&scored, 7), settings);
            trainer.critic = Some(critic.expect("the group takes it"));
        }
        Objective::Pair(PairLoss::Ipo { .. }) => trainer.keep = Some(Keep { by: KeepBy::Margin, share: 0.4 }),
        Objective::Pair(PairLoss::Hinge { .. }) => {
            let encode = |rationale: &Rationale| Ok((ids(rationale.text.len(), 4), ids(rationale.text.len() + 50, 5)));
            trainer.reasons = Some(Reasons { gamma: 0.5, log_sigmoid: false, encode: Box::new(encode) });
        }
        _ => {}
    }
    (trainer, reference)
}

/// Takes the steps of a task on one rank of a group, or alone.
fn train(task: &Task, group: Option<ProcessGroup>) -> Found {
    let ranks = group.map_or_else(Ranks::default, |group| Ranks::of(std::sync::Arc::new(group), task.bucket));
    let (mut trainer, reference) = trainer(task, ranks.clone());
    let mut found = Found { metrics: Vec::new(), weights: String::new(), kept: 0, error: None };
    let mut begin = 0;
    if let Some((root, step)) = &task.from {
        begin = *step;
        let restored = trainer.restore::<usize>(root).expect("a whole checkpoint");
        assert_eq!(restored.found.expect("one").1, begin);
    }
    for step in begin..begin + task.steps {
        let all = (0..task.examples).map(|i| example(&objectives()[task.objective], 31 * step + i)).collect();
        let mut own = ranks.share(all);
        if task.broken == Some(ranks.rank()) {
            own[0].prompt_ids.clear();
        }
        if let Some((rank, skip)) = task.not_finite {
            trainer.skip_not_finite = skip;
            own[0].weight = if rank == ranks.rank() { f64::NAN } else { 1.0 };
        }
        let cut = own.chunks(task.micro_batch).map(<[Example]>::to_vec).collect();
        let done = trainer.prepare(&reference, cut).and_then(|prepared| trainer.step(&prepared));
        match done {
            Ok(metrics) => found.metrics.push(metrics),
            Err(error) => found.error = Some(error.to_string()),
        }
    }
    if let Some(root) = &task.into {
        save(&mut trainer, root, begin + task.steps);
    }
    let mut hasher = blake3::Hasher::new();
    found.kept = trainer.master.weights.0.values().map(Tensor::numel).sum();
    for (_, master) in trainer.masters() {
        let whole = master.whole(&master.weights).expect("all ranks are there");
        for weight in whole.0.values() {
            let values = Vec::<f32>::try_from(weight.detach().view([-1])).expect("floats");
            for value in values {
                hasher.update(&value.to_le_bytes());
            }
        }
    }
    found.weights = hasher.finalize().to_hex().to_string();
    found
}

/// Writes a checkpoint as the learner does: every rank its part, then the first the manifest.
fn save(trainer: &mut Trainer, root: &Path, step: usize) {
    let staging = root.join(format!(".checkpoint-{step}.staging"));
    std::fs::create_dir_all(&staging).expect("a folder");
    trainer.begin_checkpoint(&staging).expect("begun");
    let written = trainer.end_checkpoint().expect("written");
    if trainer.ranks().rank() == 0 {
        Checkpoint::seal(&staging, step as u64, written, &step).expect("sealed");
    }
}

#[test]
#[ignore = "a rank of the other tests"]
fn a_rank() {
    let Some(rank) = Rank::of_this_process() else { return };
    tch::set_num_threads(1);
    let task: Task = serde_json::from_str(&rank.task).expect("a task");
    let group = ProcessGroup::join(rank.store(), rank.join()).expect("all come");
    tell(serde_json::to_string(&train(&task, Some(group))).expect("plain data"));
}

fn on(task: &Task, size: usize) -> Vec<Found> {
    alike(task, &run(&serde_json::to_string(task).expect("plain data"), size))
}

/// Reads what the ranks found, which is the same on all.
fn alike(task: &Task, told: &[String]) -> Vec<Found> {
    let found: Vec<Found> = told.iter().map(|text| serde_json::from_str(text).expect("what a rank found")).collect();
    for other in &found[1..] {
        assert_eq!(other.weights, found[0].weights, "{task:?}: the ranks' weights drift apart");
        assert_eq!(other.metrics, found[0].metrics, "{task:?}: the ranks tell other things");
        assert_eq!(other.error.is_some(), found[0].error.is_some());
    }
    found
}

/// Largest relative difference of any metric of any step.
fn difference(a: &Found, b: &Found) -> (f64, String) {
    assert_eq!(a.metrics.len(), b.metrics.len());
    let mut worst = (0.0, String::new());
    for (step, (a, b)) in a.metrics.iter().zip(&b.metrics).enumerate() {
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (name, value) in a {
            let off = (value - b[name]).abs() / value.abs().max(1.0);
            if off > worst.0 {
                worst = (off, format!("{name} of step {step}: {value} and {}", b[name]));
            }
        }
    }
    worst
}

fn task(objective: usize) -> Task {
    Task {
        objective,
        examples: 16,
        micro_batch: 16,
        steps: 3,
        bfloat16: false,
        bucket: 1000,
        broken: None,
        optimizer: Which::AdamW,
        not_finite: None,
        from: None,
        into: None,
    }
}

#[test]
fn a_step_that_is_not_finite_on_one_rank_is_left_out_on_all() {
    let untrained = train(&Task { steps: 0, ..task(0) }, None).weights;
    for skip in [true, false] {
        let task = Task { not_finite: Some((2, skip)), steps: 1, micro_batch: 2, ..task(0) };
        for found in on(&task, 4) {
            assert_eq!(found.weights, untrained);
            assert_eq!(found.metrics.first().map(|metrics| metrics["steps/skipped"]), skip.then_some(1.0));
            assert_eq!(found.error.is_some_and(|error| error.contains("loss is NaN")), !skip);
        }
    }
}

#[test]
fn each_rank_keeps_its_share_of_masters_gradients_and_moments() {
    let whole = train(&Task { steps: 0, ..task(0) }, None).kept;
    for (size, optimizer) in [(2, Which::AdamW), (4, Which::AdamW), (4, Which::Adafactor)] {
        let kept: Vec<usize> =
            on(&Task { steps: 0, optimizer, ..task(0) }, size).iter().map(|found| found.kept).collect();
        assert_eq!(kept.iter().sum::<usize>(), whole);
        // Rows of a weight differ by one at most; whole weights differ by more.
        let most = if matches!(optimizer, Which::AdamW) { 1.02 } else { 1.5 };
        assert!(kept.iter().all(|kept| *kept as f64 <= most * whole as f64 / size as f64), "{kept:?} of {whole}");
    }
}

#[test]
fn an_optimizer_that_reads_whole_weights_is_shared_too() {
    for micro_batch in [3, 16] {
        let task = Task { optimizer: Which::Adafactor, micro_batch, ..task(0) };
        let (off, what) = difference(&train(&task, None), &on(&task, 4)[0]);
        assert!(off < 1e-4, "{what}");
    }
}

#[test]
fn a_checkpoint_of_four_ranks_goes_on_with_any_number() {
    // PPO has two models.
    for (objective, bfloat16, optimizer) in
        [(0, true, Which::AdamW), (8, false, Which::AdamW), (0, false, Which::Adafactor)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Task { steps: 2, bfloat16, optimizer, into: Some(folder.path().into()), ..task(objective) };
        on(&first, 4);
        let next = Task { from: Some((folder.path().into(), 2)), into: None, ..first.clone() };
        let whole = on(&Task { steps: 4, into: None, ..first.clone() }, 4).remove(0);
        let expected = Found { metrics: whole.metrics[2..].to_vec(), ..whole };
        assert_eq!(on(&next, 4)[0], expected, "four ranks, to the bit");
        for size in [1, 2, 3] {
            let (off, what) = difference(&expected, &on(&next, size)[0]);
            assert!(off < if bfloat16 { 2e-2 } else { 1e-4 }, "{size} ranks: {what}");
        }
        let (off, what) = difference(&expected, &train(&next, None));
        assert!(off < if bfloat16 { 2e-2 } else { 1e-4 }, "alone: {what}");
    }
}

#[test]
fn one_two_and_four_ranks_agree_for_twenty_steps_and_repeat_to_the_bit() {
    let long = Task { micro_batch: 3, steps: 20, ..task(0) };
    let alone = train(&long, None);
    for (size, bucket) in [(1, 1000), (2, 1 << 18), (2, 1000), (4, 1000)] {
        let long = Task { bucket, ..long.clone() };
        let found = on(&long, size);
        let (off, what) = difference(&alone, &found[0]);
        assert!(off < 1e-4, "{size} ranks: {what}");
        assert_eq!(on(&long, size)[0], found[0], "{size} ranks, again");
    }
}

#[test]
fn statistics_of_a_step_are_those_of_all_ranks() {
    for objective in 1..objectives().len() {
        let whole = train(&task(objective), None);
        let cut = train(&Task { micro_batch: 4, ..task(objective) }, None);
        let halves = on(&Task { micro_batch: 8, ..task(objective) }, 2);
        for (name, other) in [("4 x 4", &cut), ("2 ranks x 8", &halves[0])] {
            let (off, what) = difference(&whole, other);
            assert!(off < 1e-4, "{:?}, 1 x 16 and {name}: {what}", objectives()[objective]);
        }
    }
}

#[test]
fn shares_may_be_uneven_and_empty() {
    for objective in [0, 1, 3, 4] {
        for examples in [5, 3] {
            let uneven = Task { examples, micro_batch: 2, ..task(objective) };
            let (off, what) = difference(&train(&uneven, None), &on(&uneven, 4)[0]);
            assert!(off < 1e-4, "{:?}, {examples} examples on 4 ranks: {what}", objectives()[objective]);
        }
    }
}

#[test]
fn bfloat16_weights_have_float32_gradients_on_all_ranks() {
    let task = Task { bfloat16: true, micro_batch: 4, ..task(0) };
    let (off, what) = difference(&train(&task, None), &on(&task, 2)[0]);
    // Sums over fewer rows round differently in bfloat16.
    assert!(off < 2e-2, "{what}");
}

#[test]
fn what_one_rank_cannot_train_ends_the_step_on_all_and_changes_nothing() {
    let broken = Task { broken: Some(1), steps: 1, ..task(0) };
    let untrained = train(&Task { steps: 0, ..task(0) }, None).weights;
    for (rank, found) in on(&broken, 4).into_iter().enumerate() {
        let error = found.error.expect("refused");
        assert!(error.contains("has no tokens"), "{error}");
        assert_eq!(error.starts_with("rank 1: "), rank != 1, "{error}");
        assert_eq!(found.weights, untrained);
    }
}

#[test]
fn a_gradient_that_is_lost_on_one_rank_ends_the_step_on_all_and_changes_nothing() {
    let untrained = train(&Task { steps: 0, ..task(0) }, None).weights;
    // The first gradient of a round, one in the middle of its buckets, and the first of the second round.
    for (size, failing, pass) in [(2, 0, 1), (2, 1, 4), (2, 1, 14), (4, 3, 2)] {
        let lost = Task { steps: 1, micro_batch: 2, bucket: 5_000, ..task(0) };
        let point = format!("gradient_arrived:{pass}:panic");
        let told = run_failing(&serde_json::to_string(&lost).expect("plain data"), size, failing, &point);
        for (rank, found) in alike(&lost, &told).into_iter().enumerate() {
            let error = found.error.unwrap_or_else(|| panic!("rank {rank} of {size} went on after pass {pass}"));
            assert!(error.contains("a gradient was lost in the backward pass: failpoint gradient_arrived"), "{error}");
            assert_eq!(error.starts_with(&format!("rank {failing}: ")), rank != failing, "{error}");
            assert_eq!(found.weights, untrained);
        }
    }
}
