//! Training on rated answers: regression of several attributes (HelpSteer).

use anyhow::ensure;
use joust_config::RewardFile;
use joust_data::{Rating, Tokenizer, read_ratings, split_by};
use joust_model::{ModelConfig, Weights, sequence_ratings};
use joust_train::{Master, RatedSequence, rating_step};

use super::{format, report, train_loop};
use crate::{
    device,
    sft::{Fits, on_error},
};

/// A rated answer with what it is split by.
struct Rated {
    sequence: RatedSequence,
    prompt: String,
}

/// Reads the answers, trains, and measures on those held out.
pub(super) fn train(
    file: &RewardFile,
    tokenizer: &Tokenizer,
    start: (&ModelConfig, &Weights),
) -> anyhow::Result<Master> {
    let (on_error, attributes) = (on_error(file.data.on_error), &file.loss.attributes);
    let (ratings, skipped) = read_ratings(&file.data.train, attributes, format(file), on_error)?;
    report(skipped);
    let fits = Fits::new(file.data.max_length, start.0.max_position_embeddings);
    let rated = tokenize(tokenizer, ratings, fits)?;
    let (train, held) = split_by(rated, |rated| rated.prompt.clone(), file.data.eval_fraction, file.seed)?;
    let device = device::chosen();
    let master = train_loop(file, start, &train, |master, batches| {
        let sequences: Vec<Vec<&RatedSequence>> =
            batches.iter().map(|batch| batch.iter().map(|rated| &rated.sequence).collect()).collect();
        let (value, update) = rating_step(master, &sequences, &device)?;
        Ok((format!("loss={value:.4}"), update))
    })?;
    if !held.is_empty() {
        for (attribute, error) in file.loss.attributes.iter().zip(errors(&master, &held)?) {
            eprintln!("held_out={} {attribute}_error={error:.3}", held.len());
        }
    }
    Ok(master)
}

fn tokenize(tokenizer: &Tokenizer, ratings: Vec<Rating>, mut fits: Fits) -> anyhow::Result<Vec<Rated>> {
    let mut rated = Vec::with_capacity(ratings.len());
    for Rating { prompt, completion, ratings } in ratings {
        let ids = tokenizer.encode_answered(&prompt, &completion)?;
        if fits.check(ids.len()) {
            rated.push(Rated { sequence: RatedSequence { ids, ratings }, prompt: prompt.display() });
        }
    }
    fits.report("answers");
    ensure!(!rated.is_empty(), fits.none("answer"));
    Ok(rated)
}

/// Computes the mean absolute error of each attribute over the answers that were rated; NaN where none was.
fn errors(master: &Master, held: &[Rated]) -> anyhow::Result<Vec<f64>> {
    let _no_grad = tch::no_grad_guard();
    let model = master.model()?;
    let attributes = model.config().labels.len();
    let mut sums = vec![(0.0, 0.0); attributes];
    for part in held.chunks(32) {
        let sequences: Vec<Vec<u32>> = part.iter().map(|rated| rated.sequence.ids.clone()).collect();
        let found = Vec::<f32>::try_from(sequence_ratings(&model, &sequences).view([-1]))?;
        let wanted = part.iter().flat_map(|rated| rated.sequence.ratings.iter());
        for (index, (found, wanted)) in found.into_iter().zip(wanted).enumerate().filter(|(_, (_, w))| !w.is_nan()) {
            let (sum, count) = &mut sums[index % attributes];
            *sum += (f64::from(found) - wanted).abs();
            *count += 1.0;
        }
    }
    Ok(sums.into_iter().map(|(sum, count)| sum / count).collect())
}
