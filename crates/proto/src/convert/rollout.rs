//! Answers and model sets.

use joust_core::{Completion, ModelRef, ModelSet, PromptTask, Rollout};

use crate::{
    Error, Result,
    common::v1 as wire,
    limits::MAX_ANSWERS,
    parse::{all_finite, choice, counted, hash, list, optional, record_id, required, schema, text, tokens},
};

impl From<ModelRef> for wire::ModelRef {
    fn from(model: ModelRef) -> Self {
        Self { generation: model.generation, version: model.version, hash: model.hash }
    }
}

impl TryFrom<wire::ModelRef> for ModelRef {
    type Error = Error;
    fn try_from(model: wire::ModelRef) -> Result<Self> {
        Ok(Self { generation: model.generation, version: model.version, hash: hash("hash", model.hash)? })
    }
}

impl From<ModelSet> for wire::ModelSet {
    fn from(set: ModelSet) -> Self {
        Self {
            policy: Some(set.policy.into()),
            reference: Some(set.reference.into()),
            ema: set.ema.map(Into::into),
            past: set.past.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ModelSet> for ModelSet {
    type Error = Error;
    fn try_from(set: wire::ModelSet) -> Result<Self> {
        Ok(Self {
            policy: required("policy", set.policy)?,
            reference: required("reference", set.reference)?,
            ema: optional("ema", set.ema)?,
            past: list("past", set.past, 0..=MAX_ANSWERS)?,
        })
    }
}

impl From<PromptTask> for wire::PromptTask {
    fn from(task: PromptTask) -> Self {
        Self {
            schema: task.schema.into(),
            id: task.id.as_bytes().to_vec(),
            position: task.position,
            epoch: task.epoch,
            row: task.row,
            purpose: wire::Purpose::from(task.purpose).into(),
            prompt: Some(task.prompt.into()),
        }
    }
}

impl TryFrom<wire::PromptTask> for PromptTask {
    type Error = Error;
    fn try_from(task: wire::PromptTask) -> Result<Self> {
        Ok(Self {
            schema: schema(task.schema)?,
            id: record_id("id", &task.id)?,
            position: task.position,
            epoch: task.epoch,
            row: task.row,
            purpose: choice::<wire::Purpose, _>("purpose", task.purpose)?,
            prompt: required("prompt", task.prompt)?,
        })
    }
}

impl From<Completion> for wire::Completion {
    fn from(completion: Completion) -> Self {
        Self {
            sample_index: completion.sample_index,
            player: wire::Player::from(completion.player).into(),
            model: Some(completion.model.into()),
            token_ids: completion.token_ids,
            logprobs: completion.logprobs,
            text: completion.text,
            finish: wire::Finish::from(completion.finish).into(),
        }
    }
}

impl TryFrom<wire::Completion> for Completion {
    type Error = Error;
    fn try_from(completion: wire::Completion) -> Result<Self> {
        let token_ids = tokens("token_ids", completion.token_ids)?;
        counted("logprobs", completion.logprobs.len(), token_ids.len()..=token_ids.len())?;
        all_finite("logprobs", &completion.logprobs)?;
        Ok(Self {
            sample_index: completion.sample_index,
            player: choice::<wire::Player, _>("player", completion.player)?,
            model: required("model", completion.model)?,
            token_ids,
            logprobs: completion.logprobs,
            text: text("text", completion.text)?,
            finish: choice::<wire::Finish, _>("finish", completion.finish)?,
        })
    }
}

impl From<Rollout> for wire::Rollout {
    fn from(rollout: Rollout) -> Self {
        Self {
            schema: rollout.schema.into(),
            id: rollout.id.as_bytes().to_vec(),
            task: Some(rollout.task.into()),
            prompt_ids: rollout.prompt_ids,
            completions: rollout.completions.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Rollout> for Rollout {
    type Error = Error;
    fn try_from(rollout: wire::Rollout) -> Result<Self> {
        let completions: Vec<Completion> = list("completions", rollout.completions, 0..=MAX_ANSWERS)?;
        if let Some(i) = completions.windows(2).position(|pair| pair[0].sample_index >= pair[1].sample_index) {
            let field = format!("completions[{}].sample_index", i + 1);
            let wanted = format!("more than {}, that of the completion before", completions[i].sample_index);
            return Err(Error::value(field, completions[i + 1].sample_index, wanted));
        }
        Ok(Self {
            schema: schema(rollout.schema)?,
            id: record_id("id", &rollout.id)?,
            task: required("task", rollout.task)?,
            prompt_ids: tokens("prompt_ids", rollout.prompt_ids)?,
            completions,
        })
    }
}
