//! The libtorch side of `reward_model` judges: a Hugging Face folder with a scalar head scores answered prompts.

use std::sync::Arc;

use joust_config::judge::{JudgeConfig, RewardModelJudge};
use joust_core::Prompt;
use joust_data::Tokenizer;
use joust_judges::{Scorer, Scorers};
use joust_model::{Device, Head, Llama};
use joust_train::sequence_scores;
use tokio::sync::Mutex;

use crate::model;

/// One reward model in memory.
struct RewardModel {
    model: Mutex<Llama>,
    tokenizer: Arc<Tokenizer>,
    max_length: usize,
    batch_size: usize,
    device: Device,
}

/// Opens the models of all `reward_model` judges.
///
/// # Errors
/// A folder that is not a whole reward model.
pub fn open_all(judges: &[JudgeConfig], device: &Device) -> anyhow::Result<Scorers> {
    let mut scorers = Scorers::new();
    for judge in judges {
        if let JudgeConfig::RewardModel(config) = judge {
            scorers.insert(config.name.clone(), Arc::new(RewardModel::open(config, device)?) as Arc<dyn Scorer>);
        }
    }
    Ok(scorers)
}

impl RewardModel {
    fn open(config: &RewardModelJudge, device: &Device) -> anyhow::Result<Self> {
        let opened = model::open(&config.model, Head::Score, None)?;
        let llama = Llama::for_sampling(&opened.config, &opened.weights)?;
        let context = opened.config.max_position_embeddings as usize;
        Ok(Self {
            model: Mutex::new(llama),
            tokenizer: opened.tokenizer,
            max_length: (config.max_length as usize).min(context),
            batch_size: config.batch_size as usize,
            device: device.clone(),
        })
    }
}

impl Scorer for RewardModel {
    fn score(&self, texts: Vec<(Prompt, String)>) -> Result<Vec<Option<f64>>, String> {
        let _no_grad = tch::no_grad_guard();
        let model = self.model.blocking_lock();
        let encode = |(prompt, answer): &(Prompt, String)| self.tokenizer.encode_answered(prompt, answer);
        let sequences: Vec<Vec<u32>> = texts.iter().map(encode).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let fits = |ids: &Vec<u32>| !ids.is_empty() && ids.len() <= self.max_length;
        let mut scores = vec![None; sequences.len()];
        let usable: Vec<usize> = (0..sequences.len()).filter(|i| fits(&sequences[*i])).collect();
        for part in usable.chunks(self.batch_size.max(1)) {
            let batch: Vec<Vec<u32>> = part.iter().map(|i| sequences[*i].clone()).collect();
            let _permit = self.device.acquire();
            let values = Vec::<f32>::try_from(sequence_scores(&model, &batch)).map_err(|e| e.to_string())?;
            part.iter().zip(values).for_each(|(i, value)| scores[*i] = Some(f64::from(value)));
        }
        Ok(scores)
    }
}
