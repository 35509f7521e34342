//! Small heads that are trained beside the policy, for losses that have such.

use joust_losses::{PairLoss, first_degree_head, first_mask_heads};
use joust_model::{ModelConfig, Weights};

use crate::{Master, Objective, Ranks, Result, Settings, beside, masks};

/// Makes the heads of an objective as they start, for models of the policy's shape; `None` for objectives without such.
///
/// They are updated as the policy is, by the same ranks, but for the weight decay of masks, which is their own.
///
/// # Errors
/// [`crate::Error::Border`] if libtorch refuses.
pub fn heads(
    objective: &Objective,
    config: &ModelConfig,
    settings: Settings,
    (ranks, device): (Ranks, tch::Device),
) -> Result<Option<Master>> {
    let (first, settings) = match *objective {
        Objective::Pair(PairLoss::SparsePo { heads, mask_decay, .. }) => {
            let layers = config.num_hidden_layers as i64;
            let optimizer = settings.optimizer.with_weight_decay(mask_decay);
            (first_mask_heads(layers, config.hidden_size, masks::names(heads)), Settings { optimizer, ..settings })
        }
        Objective::Pair(PairLoss::Spo { degrees, .. }) => {
            (first_degree_head(degrees as i64, config.hidden_size), settings)
        }
        _ => return Ok(None),
    };
    beside(ranks, config, &Weights(first.into_iter().collect()).to_device(device), settings).map(Some)
}
