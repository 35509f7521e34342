//! Training on the pairs of many users: answers are places, users prefer what lies nearer to a mixture of prototypes (PAL).

use std::{cell::RefCell, collections::BTreeMap};

use anyhow::{Context, ensure};
use joust_config::RewardFile;
use joust_core::rng::{Stream, uniform};
use joust_data::Tokenizer;
use joust_losses::{distances, ideal_points, pal_loss};
use joust_model::{Llama, ModelConfig, Weights};
use joust_train::{Master, Ranks, UserPair, beside, pal_step};
use tch::{Kind, Tensor};

use super::{
    heads::{chosen, rejected, states},
    open,
    pairs::{Pair, read},
    report_held, steps_of, train_loop,
};
use crate::{device, model::rated, optim, padding, people::People};

/// What a training leaves: the model, and who it knows.
type Trained = (ModelConfig, Weights, People);

/// Numbers the users of the pairs by name.
fn users(pairs: &[&Pair], file: &RewardFile) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut users = BTreeMap::new();
    for pair in pairs {
        let user = pair.user.clone();
        let missing = || format!("{}: a pair has no column user, which says whose it is", file.data.train.display());
        users.insert(user.with_context(missing)?, 0);
    }
    users.values_mut().zip(0..).for_each(|(number, row)| *number = row);
    Ok(users)
}

/// Returns the row of each pair's user.
fn owners(pairs: &[Pair], users: &BTreeMap<String, i64>) -> Tensor {
    let row = |pair: &Pair| pair.user.as_ref().and_then(|user| users.get(user)).copied().unwrap_or_default();
    Tensor::from_slice(&pairs.iter().map(row).collect::<Vec<i64>>()).to_device(device::torch())
}

/// Draws numbers of standard deviation `spread`, uniform, float32.
fn drawn(shape: [i64; 2], spread: f64, (seed, what): (u64, u64)) -> Tensor {
    let draw = |i: i64| (uniform(seed, Stream::Init, what, (0, i as u32)) - 0.5) * spread * 12f64.sqrt();
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| draw(i) as f32).collect();
    Tensor::from_slice(&values).view(shape).to_device(device::torch())
}

/// Returns the share of the pairs whose chosen answer lies nearer to its user.
fn accuracy(places: [&Tensor; 2], points: &Tensor) -> f64 {
    let [better, worse] = places.map(|place| distances(place, points));
    better.lt_tensor(&worse).to_kind(Kind::Float).mean(Kind::Float).double_value(&[])
}

/// Trains places, prototypes and users.
pub(super) fn train(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<Trained> {
    let (base, weights) = open(file, tokenizer)?;
    let (pairs, held) = read(file, tokenizer, &base)?;
    let users = users(&pairs.iter().chain(&held).collect::<Vec<_>>(), file)?;
    let (kinds, places) = (i64::from(file.loss.prototypes), i64::from(file.loss.places));
    let labels: Vec<String> = (1..=places).map(|i| format!("place_{i}")).collect();
    let (config, mut weights) = rated(base, &weights, padding::id(tokenizer), &labels);
    let spread = 1.0 / (config.hidden_size as f64).sqrt();
    weights.0.insert("score.weight".into(), drawn([places, config.hidden_size], spread, (file.seed, 1)));
    let settings = optim::settings(file.loss.user_learning_rate, &file.learner.optim, steps_of(file, pairs.len()));
    let start = [
        ("prototypes", drawn([kinds, places], 1.0, (file.seed, 2))),
        // Users of one mind would cancel one another, and with them all that tells answers apart.
        ("users", drawn([users.len() as i64, kinds], 1.0, (file.seed, 3))),
    ];
    let start = Weights(start.map(|(name, tensor)| (name.to_owned(), tensor)).into());
    let people = RefCell::new(beside(Ranks::default(), &config, &start, settings)?);
    let rows = Vec::<i64>::try_from(owners(&pairs, &users))?;
    let own = |(pair, user): (&Pair, &i64)| UserPair { pair: pair.sequences.clone(), user: *user };
    let own: Vec<UserPair> = pairs.iter().zip(&rows).map(own).collect();
    let device = device::chosen();
    let master = train_loop(file, (&config, &weights), &own, |master, batches| {
        let (value, accuracy, update) = pal_step((master, &mut people.borrow_mut()), batches, &device)?;
        Ok((format!("loss={value:.4} accuracy={accuracy:.3}"), update))
    })?;
    let people = people.into_inner();
    let _no_grad = tch::no_grad_guard();
    if !held.is_empty() {
        let points = points(&people)?.index_select(0, &owners(&held, &users));
        let [better, worse] = placed(&config, &master.weights, &held)?;
        report_held(held.len(), accuracy([&better, &worse], &points));
    }
    Ok((config, master.weights, known(&people, &users)?))
}

fn points(people: &Master) -> anyhow::Result<Tensor> {
    Ok(ideal_points(people.weights.get("users")?, people.weights.get("prototypes")?)?)
}

/// Writes down prototypes, and each user's share of them.
fn known(people: &Master, users: &BTreeMap<String, i64>) -> anyhow::Result<People> {
    let _no_grad = tch::no_grad_guard();
    let rows = |tensor: &Tensor| -> anyhow::Result<Vec<Vec<f64>>> {
        let rows = tensor.to_kind(Kind::Double);
        (0..rows.size()[0]).map(|i| Ok(Vec::try_from(rows.get(i))?)).collect()
    };
    let shares = rows(&people.weights.get("users")?.to_kind(Kind::Double).softmax(1, Kind::Double))?;
    let users = users.keys().cloned().zip(shares).collect();
    Ok(People { prototypes: rows(people.weights.get("prototypes")?)?, users })
}

/// Computes where chosen and rejected answers lie, float32 `[N, D]` each.
fn placed(config: &ModelConfig, weights: &Weights, pairs: &[Pair]) -> anyhow::Result<[Tensor; 2]> {
    let model = Llama::new(config, weights)?;
    Ok([chosen, rejected].map(|side| model.head(&states(&model, pairs, side))))
}

/// Fits the shares of new users to prototypes that stay as they are.
pub(super) fn welcome(file: &RewardFile, tokenizer: &Tokenizer) -> anyhow::Result<Trained> {
    let folder = &file.model.base;
    let (config, weights) = open(file, tokenizer)?;
    let before = People::read(folder)?;
    let mut before = before
        .with_context(|| format!("{} has no prototypes; give a folder that loss.prototypes made", folder.display()))?;
    let (pairs, held) = read(file, tokenizer, &config)?;
    let users = users(&pairs.iter().chain(&held).collect::<Vec<_>>(), file)?;
    if let Some(user) = users.keys().find(|user| before.users.contains_key(*user)) {
        anyhow::bail!("{} knows the user {user:?} already; leave their pairs out", folder.display());
    }
    let steps = file.learner.optim.steps.unwrap_or(200);
    let settings = optim::settings(file.loss.user_learning_rate, &file.learner.optim, steps);
    let prototypes = before.tensor().to_device(device::torch());
    let zeros = Tensor::zeros([users.len() as i64, prototypes.size()[0]], (Kind::Float, device::torch()));
    let mut people = beside(Ranks::default(), &config, &Weights([("users".to_owned(), zeros)].into()), settings)?;
    let [better, worse] = tch::no_grad(|| placed(&config, &weights, &pairs))?;
    let (rows, mut last) = (owners(&pairs, &users), 0.0);
    for _ in 0..steps {
        let points = ideal_points(people.weights.get("users")?, &prototypes)?.index_select(0, &rows);
        let loss = pal_loss(&better, &worse, &points)?.mean(Kind::Float);
        last = loss.double_value(&[]);
        ensure!(last.is_finite(), "the loss is {last}; lower loss.user_learning_rate");
        loss.backward();
        people.update()?;
    }
    let _no_grad = tch::no_grad_guard();
    people.weights.0.insert("prototypes".into(), prototypes);
    let points = points(&people)?;
    let share = accuracy([&better, &worse], &points.index_select(0, &rows));
    eprintln!("users={} steps={steps} loss={last:.4} accuracy={share:.3}", users.len());
    if !held.is_empty() {
        let [better, worse] = placed(&config, &weights, &held)?;
        report_held(held.len(), accuracy([&better, &worse], &points.index_select(0, &owners(&held, &users))));
    }
    before.users.extend(known(&people, &users)?.users);
    Ok((config, weights, before))
}
