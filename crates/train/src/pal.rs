//! Reward models of many users: ideal points that are mixtures of prototypes, beside a model that places answers.

use joust_losses::{ideal_points, pal_loss};
use joust_model::{Device, Dtype, ModelConfig, Weights, sequence_ratings};
use tch::{Kind, Tensor};

use crate::{Error, Master, Ranks, Result, RewardPair, Settings, Update};

/// A user's preference.
#[derive(Debug, Clone, PartialEq)]
pub struct UserPair {
    /// The preference.
    pub pair: RewardPair,
    /// Whose it is, a row of the users' weights.
    pub user: i64,
}

/// Makes masters of tensors that belong to no decoder; they are updated like any other.
///
/// # Errors
/// [`Error::Border`] if libtorch refuses.
pub fn beside(ranks: Ranks, config: &ModelConfig, weights: &Weights, settings: Settings) -> Result<Master> {
    let mut shape = config.clone().with_dtype(Dtype::Float32);
    shape.num_hidden_layers = 0; // no layer, so that a master stacks nothing
    Master::on(ranks, &shape, weights, settings)
}

/// Updates a model that places answers, and prototypes and users beside it, once by [`pal_loss`], mean over the pairs of all micro-batches.
///
/// # Arguments
/// * `master` - a decoder with one label a dimension.
/// * `people` - `prototypes` `[K, D]` and `users` `[U, K]`, made by [`beside`].
///
/// # Returns
/// The loss, the share of pairs in which chosen lies nearer, and the update of `master`.
///
/// # Errors
/// [`Error::LossNotFinite`] or [`Error::GradientNotFinite`]; then nothing was updated.
pub fn pal_step(
    (master, people): (&mut Master, &mut Master),
    micro_batches: &[Vec<&UserPair>],
    device: &Device,
) -> Result<(f64, f64, Update)> {
    let pairs = micro_batches.iter().map(Vec::len).sum::<usize>();
    let (mut value, mut right) = (0.0, 0.0);
    for batch in micro_batches.iter().filter(|batch| !batch.is_empty()) {
        let _permit = device.acquire();
        let sides = batch.iter().map(|own| &own.pair.chosen).chain(batch.iter().map(|own| &own.pair.rejected));
        let places = sequence_ratings(&master.model()?, &sides.cloned().collect::<Vec<_>>());
        let count = batch.len() as i64;
        let owners: Vec<i64> = batch.iter().map(|own| own.user).collect();
        let points = ideal_points(people.weights.get("users")?, people.weights.get("prototypes")?)?;
        let points = points.index_select(0, &Tensor::from_slice(&owners).to_device(device.torch()));
        let losses = pal_loss(&places.narrow(0, 0, count), &places.narrow(0, count, count), &points)?;
        let loss = losses.sum(Kind::Float) / pairs as f64;
        let part = loss.double_value(&[]);
        if !part.is_finite() {
            master.forget();
            people.forget();
            let examples = format!("(a batch of {count} pairs)");
            return Err(Error::LossNotFinite { step: master.optimizer.updates, value: part, examples });
        }
        value += part;
        right += losses.detach().lt(2f64.ln()).to_kind(Kind::Float).sum(Kind::Float).double_value(&[]);
        loss.backward();
    }
    let _permit = device.acquire();
    let update = master.update()?;
    people.update()?;
    Ok((value, right / pairs.max(1) as f64, update))
}
