//! The libtorch side of `reward_model` and `learned` judges: a Hugging Face folder with a scalar head scores answered prompts.

use std::{path::Path, sync::Arc};

use anyhow::{bail, ensure};
use joust_config::judge::{JudgeConfig, RewardModelJudge};
use joust_core::Prompt;
use joust_data::Tokenizer;
use joust_judges::{Opened, Pupil, Scorer};
use joust_losses::distances;
use joust_model::{Device, Head, Llama, sequence_ratings};

use tch::Tensor;
use tokio::sync::Mutex;

use crate::{learned::LearnedModel, model, people::People};

/// What a model's labels mean, one number each.
pub(crate) enum Reading {
    /// The score is their sum with these weights.
    Sum(Vec<f64>),
    /// They are a place, and the score is how near it lies to this one.
    Near(Vec<f64>),
}

/// How texts reach a reward model.
pub(crate) struct Texts {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) max_length: usize,
    pub(crate) batch_size: usize,
    pub(crate) reading: Reading,
    pub(crate) device: Device,
}

/// One reward model in memory.
struct RewardModel {
    model: Mutex<Llama>,
    texts: Texts,
}

/// Opens the models of all judges that have one; those that learn go on from what they keep under `output`.
///
/// # Errors
/// A folder that is not a whole reward model, or of a judge that learns not a whole model.
pub fn open_all(judges: &[JudgeConfig], output: &Path, device: &Device) -> anyhow::Result<Opened> {
    let mut opened = Opened::default();
    for judge in judges {
        match judge {
            JudgeConfig::RewardModel(config) => {
                let scorer: Arc<dyn Scorer> = Arc::new(RewardModel::open(config, device)?);
                opened.scorers.insert(config.name.clone(), scorer);
            }
            JudgeConfig::Learned(config) => {
                let folder = output.join("judges").join(&config.name);
                let pupil: Arc<dyn Pupil> = Arc::new(LearnedModel::open(config, folder, device)?);
                opened.pupils.insert(config.name.clone(), pupil);
            }
            JudgeConfig::Rule(_) | JudgeConfig::Oracle(_) | JudgeConfig::Matrix(_) | JudgeConfig::Players(_) => {}
        }
    }
    Ok(opened)
}

impl RewardModel {
    fn open(config: &RewardModelJudge, device: &Device) -> anyhow::Result<Self> {
        let opened = model::open(&config.model, Head::Score, None)?;
        let llama = Llama::for_sampling(&opened.config, &opened.weights.to_kind(opened.config.dtype.kind()))?;
        let context = opened.config.max_position_embeddings as usize;
        let texts = Texts {
            tokenizer: opened.tokenizer,
            max_length: (config.max_length as usize).min(context),
            batch_size: config.batch_size as usize,
            reading: reading(config, &opened.config.labels)?,
            device: device.clone(),
        };
        Ok(Self { model: Mutex::new(llama), texts })
    }
}

/// Returns how the labels are read: by weights, or of a model that knows users as places.
fn reading(config: &RewardModelJudge, labels: &[String]) -> anyhow::Result<Reading> {
    let (name, people) = (&config.name, People::read(&config.model)?);
    let Some(people) = people else {
        ensure!(config.user.is_none(), "judge {name}: its model knows no users; remove judge.user");
        return Ok(Reading::Sum(weights(config, labels)?));
    };
    let known = people.users.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    ensure!(config.attributes.is_empty(), "judge {name}: its model knows users and has no attributes; remove them");
    let Some(user) = &config.user else { bail!("judge {name}: its model knows the users {known}; write judge.user") };
    let Some(ideal) = people.ideal(user) else {
        bail!("judge {name}: user {user:?} is not one that its model knows: {known}");
    };
    ensure!(
        ideal.len() == labels.len(),
        "judge {name}: its users have {} places, its model {}",
        ideal.len(),
        labels.len()
    );
    Ok(Reading::Near(ideal))
}

/// Returns the weight of each label: what the judge says by name, or 1 of the only one.
fn weights(config: &RewardModelJudge, labels: &[String]) -> anyhow::Result<Vec<f64>> {
    let (name, known) = (&config.name, labels.join(", "));
    if config.attributes.is_empty() {
        ensure!(
            labels.len() == 1,
            "judge {name}: its model rates {known}; write judge.attributes, a weight for each that counts"
        );
        return Ok(vec![1.0]);
    }
    if let Some(unknown) = config.attributes.keys().find(|attribute| !labels.contains(attribute)) {
        bail!("judge {name}: attributes names {unknown:?}, its model rates {known}; write one of these");
    }
    Ok(labels.iter().map(|label| config.attributes.get(label).copied().unwrap_or_default()).collect())
}

impl Scorer for RewardModel {
    fn score(&self, texts: Vec<(Prompt, String)>) -> Result<Vec<Option<f64>>, String> {
        self.texts.score(&self.model.blocking_lock(), &texts)
    }
}

impl Texts {
    /// Scores what fits the limit.
    pub(crate) fn score(&self, model: &Llama, texts: &[(Prompt, String)]) -> Result<Vec<Option<f64>>, String> {
        let _no_grad = tch::no_grad_guard();
        let encode =
            |(prompt, answer): &(Prompt, String)| self.tokenizer.encode_answered(prompt, &answer.as_str().into());
        let sequences: Vec<Vec<u32>> = texts.iter().map(encode).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let mut scores = vec![None; sequences.len()];
        let usable: Vec<usize> = (0..sequences.len()).filter(|i| self.fits(&sequences[*i])).collect();
        for part in usable.chunks(self.batch_size.max(1)) {
            let batch: Vec<Vec<u32>> = part.iter().map(|i| sequences[*i].clone()).collect();
            let _permit = self.device.acquire();
            let ratings = sequence_ratings(model, &batch);
            let like = |values: &[f64]| Tensor::from_slice(values).to_kind(ratings.kind()).to_device(ratings.device());
            let values = match &self.reading {
                Reading::Sum(weights) => ratings.mv(&like(weights)),
                Reading::Near(place) => -distances(&ratings, &like(place)),
            };
            let values = Vec::<f32>::try_from(values).map_err(|e| e.to_string())?;
            part.iter().zip(values).for_each(|(i, value)| scores[*i] = Some(f64::from(value)));
        }
        Ok(scores)
    }

    /// Returns whether a sequence can be read whole.
    pub(crate) fn fits(&self, ids: &[u32]) -> bool {
        !ids.is_empty() && ids.len() <= self.max_length
    }
}
