//! Playing: answers are drawn or enumerated, judged by the matrix, paired up by the real rules, and trained on.

use joust_core::{
    Completion, Finish, Judgement, JudgementStatus, JudgementValue, ModelRef, Player, Prompt, PromptTask, Provenance,
    Purpose, RecordId, Rollout, SCHEMA,
    rng::{Stream, uniform},
};
use joust_losses::ListLoss;
use joust_pairs::{Label, PairingRules, Select, outcome_of};
use joust_train::{Known, Objective, Prepared, Schedule, ScheduleKind};

use crate::{Game, Result, game::total_variation, table::Table};

/// A method as a point of the five choices; the reference is the game's.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// Name, for tables.
    pub name: String,
    /// What is minimised.
    pub objective: Objective,
    /// Who gives the two answers: the policy, the reference, or their mixture.
    pub players: [Player; 2],
    /// Weight of the reference in the mixture, in [0, 1].
    pub mixture_coef: f64,
    /// Which answers are contrasted.
    pub select: Select,
}

/// How long and how exactly a method is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Optimizer steps.
    pub steps: u64,
    /// Peak learning rate of the cosine schedule.
    pub learning_rate: f64,
    /// Pairs drawn a step, with drawn labels; `None` takes every pair with its probability and soft labels.
    pub samples: Option<u32>,
    /// Seed of the draws.
    pub seed: u64,
}

/// The policies that a method went through.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Policies a visible distance apart, the first and the last included.
    pub policies: Vec<Vec<f64>>,
    /// The last policy.
    pub last: Vec<f64>,
    /// The mean of all policies.
    pub average: Vec<f64>,
}

/// Total variation between two kept policies of a path.
const APART: f64 = 0.006;

/// Collects the policies of a path.
struct Recorder {
    sum: Vec<f64>,
    count: u64,
    policies: Vec<Vec<f64>>,
}

impl Recorder {
    fn new(answers: usize) -> Self {
        Self { sum: vec![0.0; answers], count: 0, policies: Vec::new() }
    }

    fn enter(&mut self, policy: &[f64]) {
        if self.policies.last().is_none_or(|last| total_variation(last, policy) > APART) {
            self.policies.push(policy.to_vec());
        }
        self.count += 1;
        self.sum.iter_mut().zip(policy).for_each(|(sum, p)| *sum += p);
    }

    fn end(mut self, last: Vec<f64>) -> Path {
        self.policies.push(last.clone());
        let average = self.sum.iter().map(|sum| sum / self.count as f64).collect();
        Path { policies: self.policies, last, average }
    }
}

/// Builds the rollout of a prompt whose answers are single tokens.
fn rollout(position: u64, answers: &[(Player, usize)], logprob: impl Fn(usize) -> f64) -> Rollout {
    let completion = |(index, (player, token)): (usize, &(Player, usize))| Completion {
        sample_index: index as u32,
        player: *player,
        model: ModelRef { generation: 0, version: 0, hash: String::new() },
        token_ids: vec![*token as u32],
        logprobs: vec![logprob(*token) as f32],
        text: token.to_string(),
        finish: Finish::Length,
    };
    let id = RecordId::derive(&[b"game", &position.to_le_bytes()]);
    let prompt = Prompt::Text(String::new());
    let task = PromptTask { schema: SCHEMA, id, position, epoch: 0, row: 0, purpose: Purpose::Train, prompt };
    let completions = answers.iter().enumerate().map(completion).collect();
    Rollout { schema: SCHEMA, id, task, prompt_ids: vec![0], completions }
}

/// Lets the matrix judge every two answers.
fn judge(game: &Game, answers: &[(Player, usize)]) -> Judgement {
    let row = |&(_, i): &(Player, usize)| answers.iter().map(move |&(_, j)| game.preference[i][j]);
    Judgement {
        status: JudgementStatus::Ok,
        detail: None,
        value: Some(JudgementValue::Matrix(answers.iter().flat_map(row).collect())),
        notes: Vec::new(),
        provenance: Provenance {
            judge: game.name.to_owned(),
            config_hash: String::new(),
            backend: "matrix".into(),
            retries: 0,
        },
    }
}

/// Pairs up judged answers, and prepares the examples against a reference policy.
fn prepare(game: &Game, rollout: &Rollout, rules: &PairingRules, reference: &[f64], weight: f64) -> Vec<Prepared> {
    let answers: Vec<(Player, usize)> =
        rollout.completions.iter().map(|c| (c.player, c.token_ids[0] as usize)).collect();
    let outcome = outcome_of(rollout, &judge(game, &answers), rules);
    let known = |token: u32| Known { reference: vec![reference[token as usize].ln() as f32], ..Known::default() };
    let prepared = |mut example: joust_core::Example| {
        example.weight = weight;
        let known = example.answers.iter().map(|answer| known(answer.token_ids[0])).collect();
        Prepared::new(example, known)
    };
    outcome.examples.into_iter().map(prepared).collect()
}

fn rules(select: Select, label: Label, seed: u64) -> PairingRules {
    PairingRules {
        rationale: None,
        select,
        filters: Vec::new(),
        label,
        missing_eos_penalty: 0.0,
        score_scale: 1.0,
        threshold: 0.85,
        positions: 0,
        seed,
    }
}

/// Returns the answer whose cumulated probability exceeds `u`.
fn invert(policy: &[f64], u: f64) -> usize {
    let mut total = 0.0;
    let mut below = |p: &f64| {
        total += p;
        total <= u
    };
    policy.iter().take_while(|p| below(p)).count().min(policy.len() - 1)
}

/// Plays a method from the reference policy on.
///
/// # Errors
/// A loss that refuses what the method gives it.
pub fn play(game: &Game, method: &Method, settings: &Settings) -> Result<Path> {
    let Settings { steps, learning_rate, .. } = *settings;
    let schedule = Schedule { kind: ScheduleKind::Cosine, learning_rate, warmup_steps: 0, total_steps: steps };
    let mut table = Table::new(&game.reference);
    let mut recorder = Recorder::new(game.answers());
    for step in 0..steps {
        let policy = table.policy();
        recorder.enter(&policy);
        let of = |player: Player| match player {
            Player::Reference => game.reference.clone(),
            Player::Mixture => game.mixture(&policy, method.mixture_coef),
            _ => policy.clone(),
        };
        let players = method.players.map(|player| (player, of(player)));
        let batch = match settings.samples {
            None => every_pair(game, method, &players),
            Some(samples) => drawn_pairs(game, method, &players, (settings.seed, step * u64::from(samples), samples)),
        };
        table.update(&method.objective, &batch, schedule.at(step))?;
    }
    Ok(recorder.end(table.policy()))
}

/// Takes every pair of answers, weighted by its probability.
fn every_pair(game: &Game, method: &Method, players: &[(Player, Vec<f64>); 2]) -> Vec<Prepared> {
    let answers = game.answers();
    let rules = rules(method.select, Label::Soft, 0);
    let mut batch = Vec::new();
    for (i, j) in (0..answers).flat_map(|i| (0..answers).map(move |j| (i, j))) {
        let pair = [(players[0].0, i), (players[1].0, j)];
        let weight = players[0].1[i] * players[1].1[j] * (answers * answers) as f64;
        let rollout = rollout(0, &pair, |token| players[0].1[token].ln());
        batch.extend(prepare(game, &rollout, &rules, &game.reference, weight));
    }
    batch
}

/// Draws pairs of answers, and who wins each.
fn drawn_pairs(
    game: &Game,
    method: &Method,
    players: &[(Player, Vec<f64>); 2],
    (seed, first, samples): (u64, u64, u32),
) -> Vec<Prepared> {
    let rules = rules(method.select, Label::Sampled, seed);
    let draw = |position: u64| {
        let token = |k: usize| invert(&players[k].1, uniform(seed, Stream::Train, position, (k as u32, 0)));
        let pair = [(players[0].0, token(0)), (players[1].0, token(1))];
        let rollout = rollout(position, &pair, |token| players[0].1[token].ln());
        prepare(game, &rollout, &rules, &game.reference, 1.0)
    };
    (first..first + u64::from(samples)).flat_map(draw).collect()
}

/// Steps of the regression of one iteration of [`self_play`].
const INNER_STEPS: u64 = 12;
/// Answers of one iteration of [`self_play`].
const ANSWERS: usize = 64;

/// Plays full-K SPPO: each iteration draws answers from its policy, and regresses the log-ratio to that policy on the win rates.
///
/// # Arguments
/// * `eta` - step size of the multiplicative weights that the regression stands for.
/// * `iterations` - how many; the average is over their policies.
///
/// # Errors
/// A loss that refuses its inputs.
pub fn self_play(game: &Game, eta: f64, iterations: u64) -> Result<Path> {
    let objective = Objective::List(ListLoss::SppoList { beta: 1.0 / eta });
    let rules = rules(Select::List, Label::Soft, 0);
    let schedule =
        Schedule { kind: ScheduleKind::Cosine, learning_rate: eta / 4.0, warmup_steps: 0, total_steps: INNER_STEPS };
    let mut policy = game.reference.clone();
    let mut recorder = Recorder::new(game.answers());
    for iteration in 0..iterations {
        recorder.enter(&policy);
        // Evenly spaced quantiles with one random offset: shares are right to 1/K, and right on average.
        let offset = uniform(0, Stream::Train, iteration, (0, 0));
        let quantile = |k: usize| (Player::Policy, invert(&policy, (k as f64 + offset) / ANSWERS as f64));
        let answers: Vec<(Player, usize)> = (0..ANSWERS).map(quantile).collect();
        let rollout = rollout(iteration, &answers, |token| policy[token].ln());
        let batch = prepare(game, &rollout, &rules, &policy, 1.0);
        let mut table = Table::new(&policy);
        for step in 0..INNER_STEPS {
            table.update(&objective, &batch, schedule.at(step))?;
        }
        policy = table.policy();
    }
    Ok(recorder.end(policy))
}
