//! Legend: margins of safety from the base model's own states.

use joust_config::RewardFile;
use joust_data::{PreferenceOptions, Tokenizer, read_preferences};
use joust_losses::{legend_margins, safety_direction};
use joust_model::{Llama, ModelConfig, Weights};
use joust_train::RewardPair;
use tch::Kind;

use super::{
    heads::{chosen, rejected, states},
    pairs::{Pair, tokenize},
    report,
};
use crate::sft::on_error;

/// Replaces the margin of each pair by how much further chosen lies from harm than rejected, under the model that training begins with; without
/// `data.safety` nothing happens.
pub(super) fn annotate(
    file: &RewardFile,
    tokenizer: &Tokenizer,
    (config, weights): (&ModelConfig, &Weights),
    pairs: &mut [Pair],
) -> anyhow::Result<()> {
    let Some(path) = &file.data.safety else { return Ok(()) };
    let _no_grad = tch::no_grad_guard();
    let (contrasts, skipped) = read_preferences(path, &PreferenceOptions::new(on_error(file.data.on_error)))?;
    report(skipped);
    let contrasts = tokenize(tokenizer, &contrasts, (file, config))?;
    let model = Llama::new(config, weights)?;
    let direction = safety_direction(&states(&model, &contrasts, chosen), &states(&model, &contrasts, rejected))?;
    let mut sides = [Vec::new(), Vec::new()];
    for part in pairs.chunks(256) {
        for (values, side) in sides.iter_mut().zip([chosen as fn(&RewardPair) -> &Vec<u32>, rejected]) {
            let projected = states(&model, part, side).to_kind(Kind::Double).mv(&direction);
            values.extend(Vec::<f64>::try_from(projected)?);
        }
    }
    let [safe, harmful] = sides;
    let ahead = safe.iter().zip(&harmful).filter(|(safe, harmful)| safe > harmful).count();
    for (pair, margin) in pairs.iter_mut().zip(legend_margins(&safe, &harmful)) {
        pair.sequences.margin = margin;
    }
    let share = ahead as f64 / pairs.len().max(1) as f64;
    eprintln!("margins={} contrasts={} further_from_harm={share:.3}", pairs.len(), contrasts.len());
    Ok(())
}
