//! Examples, outcomes and manifests.

use joust_core::{Answer, DropReason, Example, Manifest, Outcome, Rationale, RecordId, Target};

use crate::{
    Error, Result,
    common::v1 as wire,
    limits::{MAX_ANSWERS, MAX_EXAMPLES, MAX_ITEMS},
    parse::{
        all_finite, choice, counted, finite, hash, list, optional, optional_name, probability, record_id, record_ids,
        required, schema, text, tokens,
    },
};

impl From<Answer> for wire::Answer {
    fn from(answer: Answer) -> Self {
        Self {
            player: wire::Player::from(answer.player).into(),
            token_ids: answer.token_ids,
            behavior_logprobs: answer.behavior_logprobs,
            finish: wire::Finish::from(answer.finish).into(),
            score: answer.score,
        }
    }
}

impl TryFrom<wire::Answer> for Answer {
    type Error = Error;
    fn try_from(answer: wire::Answer) -> Result<Self> {
        let token_ids = tokens("token_ids", answer.token_ids)?;
        if !answer.behavior_logprobs.is_empty() {
            counted("behavior_logprobs", answer.behavior_logprobs.len(), token_ids.len()..=token_ids.len())?;
        }
        all_finite("behavior_logprobs", &answer.behavior_logprobs)?;
        Ok(Self {
            player: choice::<wire::Player, _>("player", answer.player)?,
            token_ids,
            behavior_logprobs: answer.behavior_logprobs,
            finish: choice::<wire::Finish, _>("finish", answer.finish)?,
            score: answer.score.map(|score| finite("score", score)).transpose()?,
        })
    }
}

impl From<Target> for wire::Target {
    fn from(target: Target) -> Self {
        let kind = match target {
            Target::Pair { p, win_rates } => {
                let win_rates = win_rates.map(Vec::from).unwrap_or_default();
                wire::target::Kind::Pair(wire::PairTarget { p, win_rates })
            }
            Target::Opponent { p } => wire::target::Kind::Opponent(wire::OpponentTarget { p }),
            Target::Group { win_rates } => wire::target::Kind::Group(wire::GroupTarget { win_rates }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Target> for Target {
    type Error = Error;
    fn try_from(target: wire::Target) -> Result<Self> {
        match target.kind {
            None => Err(Error::missing("kind", "pair, opponent or group")),
            Some(wire::target::Kind::Pair(wire::PairTarget { p, win_rates })) => {
                let p = probability("pair.p", p)?;
                probabilities("pair.win_rates", &win_rates)?;
                let win_rates = match win_rates[..] {
                    [] => None,
                    [first, second] => Some([first, second]),
                    _ => {
                        let found = format!("{} entries", win_rates.len());
                        return Err(Error::value("pair.win_rates", found, "none or 2"));
                    }
                };
                Ok(Self::Pair { p, win_rates })
            }
            Some(wire::target::Kind::Opponent(wire::OpponentTarget { p })) => {
                Ok(Self::Opponent { p: probability("opponent.p", p)? })
            }
            Some(wire::target::Kind::Group(wire::GroupTarget { win_rates })) => {
                counted("group.win_rates", win_rates.len(), 1..=MAX_ANSWERS)?;
                probabilities("group.win_rates", &win_rates)?;
                Ok(Self::Group { win_rates })
            }
        }
    }
}

fn probabilities(field: &str, numbers: &[f64]) -> Result<()> {
    numbers.iter().enumerate().try_for_each(|(i, number)| probability(&format!("{field}[{i}]"), *number).map(drop))
}

impl From<Rationale> for wire::Rationale {
    fn from(rationale: Rationale) -> Self {
        Self { prompt: Some(rationale.prompt.into()), text: rationale.text }
    }
}

impl TryFrom<wire::Rationale> for Rationale {
    type Error = Error;
    fn try_from(rationale: wire::Rationale) -> Result<Self> {
        Ok(Self { prompt: required("prompt", rationale.prompt)?, text: text("text", rationale.text)? })
    }
}

impl From<Example> for wire::PreferenceExample {
    fn from(example: Example) -> Self {
        Self {
            id: example.id.as_bytes().to_vec(),
            prompt_ids: example.prompt_ids,
            answers: example.answers.into_iter().map(Into::into).collect(),
            target: Some(example.target.into()),
            rationale: example.rationale.map(Into::into),
            weight: example.weight,
            policy_version: example.policy_version,
            source: wire::ExampleSource::from(example.source).into(),
            judge_hash: example.judge_hash,
        }
    }
}

impl TryFrom<wire::PreferenceExample> for Example {
    type Error = Error;
    fn try_from(example: wire::PreferenceExample) -> Result<Self> {
        let target: Target = required("target", example.target)?;
        let answers: Vec<Answer> = list("answers", example.answers, 0..=MAX_ANSWERS)?;
        let wanted = match &target {
            Target::Pair { .. } => 2,
            Target::Opponent { .. } => 1,
            Target::Group { win_rates } => win_rates.len(),
        };
        counted("answers", answers.len(), wanted..=wanted)?;
        if !(example.weight.is_finite() && example.weight >= 0.0) {
            return Err(Error::value("weight", example.weight, "a finite number, at least 0"));
        }
        Ok(Self {
            id: record_id("id", &example.id)?,
            prompt_ids: tokens("prompt_ids", example.prompt_ids)?,
            answers,
            target,
            rationale: optional("rationale", example.rationale)?,
            weight: example.weight,
            policy_version: example.policy_version,
            source: choice::<wire::ExampleSource, _>("source", example.source)?,
            judge_hash: optional_name("judge_hash", example.judge_hash)?,
        })
    }
}

impl From<Outcome> for wire::Outcome {
    fn from(outcome: Outcome) -> Self {
        let left_out = |(reason, pairs)| wire::LeftOut { reason: wire::DropReason::from(reason).into(), pairs };
        Self {
            schema: outcome.schema.into(),
            id: outcome.id.as_bytes().to_vec(),
            position: outcome.position,
            purpose: wire::Purpose::from(outcome.purpose).into(),
            examples: outcome.examples.into_iter().map(Into::into).collect(),
            dropped: outcome.dropped.map(|reason| wire::DropReason::from(reason).into()),
            left_out: outcome.left_out.into_iter().map(left_out).collect(),
            scores: outcome.scores,
            eos_share: outcome.eos_share,
            mean_tokens: outcome.mean_tokens,
        }
    }
}

impl TryFrom<wire::Outcome> for Outcome {
    type Error = Error;
    fn try_from(outcome: wire::Outcome) -> Result<Self> {
        let examples: Vec<Example> = list("examples", outcome.examples, 0..=MAX_EXAMPLES)?;
        let dropped: Option<DropReason> =
            outcome.dropped.map(|reason| choice::<wire::DropReason, _>("dropped", reason)).transpose()?;
        match (examples.is_empty(), dropped) {
            (true, None) => return Err(Error::missing("dropped", "a reason, since there are no examples")),
            (false, Some(_)) => return Err(Error::value("dropped", "set", "none, since there are examples")),
            _ => {}
        }
        counted("left_out", outcome.left_out.len(), 0..=MAX_ITEMS)?;
        let left_out = |(i, left): (usize, wire::LeftOut)| {
            let reason = choice::<wire::DropReason, DropReason>(&format!("left_out[{i}].reason"), left.reason)?;
            Ok((reason, left.pairs))
        };
        counted("scores", outcome.scores.len(), 0..=MAX_ANSWERS)?;
        all_finite("scores", &outcome.scores)?;
        Ok(Self {
            schema: schema(outcome.schema)?,
            id: record_id("id", &outcome.id)?,
            position: outcome.position,
            purpose: choice::<wire::Purpose, _>("purpose", outcome.purpose)?,
            examples,
            dropped,
            left_out: outcome.left_out.into_iter().enumerate().map(left_out).collect::<Result<_>>()?,
            scores: outcome.scores,
            eos_share: probability("eos_share", outcome.eos_share)?,
            mean_tokens: finite("mean_tokens", outcome.mean_tokens)?,
        })
    }
}

impl From<Manifest> for wire::Manifest {
    fn from(manifest: Manifest) -> Self {
        let bytes = |ids: Vec<RecordId>| ids.iter().map(|id| id.as_bytes().to_vec()).collect();
        let micro_batch = |ids| wire::MicroBatch { example_ids: bytes(ids) };
        Self {
            schema: manifest.schema.into(),
            step: manifest.step,
            epoch: manifest.epoch,
            micro_batches: manifest.micro_batches.into_iter().map(micro_batch).collect(),
            replayed: bytes(manifest.replayed),
            reference_version: manifest.reference_version,
            seed: manifest.seed,
            settings_hash: manifest.settings_hash,
        }
    }
}

impl TryFrom<wire::Manifest> for Manifest {
    type Error = Error;
    fn try_from(manifest: wire::Manifest) -> Result<Self> {
        counted("micro_batches", manifest.micro_batches.len(), 0..=MAX_EXAMPLES)?;
        let ids = |(i, batch): (usize, wire::MicroBatch)| {
            record_ids(&format!("micro_batches[{i}].example_ids"), &batch.example_ids, 0..=MAX_EXAMPLES)
        };
        Ok(Self {
            schema: schema(manifest.schema)?,
            step: manifest.step,
            epoch: manifest.epoch,
            micro_batches: manifest.micro_batches.into_iter().enumerate().map(ids).collect::<Result<_>>()?,
            replayed: record_ids("replayed", &manifest.replayed, 0..=MAX_EXAMPLES)?,
            reference_version: manifest.reference_version,
            seed: manifest.seed,
            settings_hash: hash("settings_hash", manifest.settings_hash)?,
        })
    }
}
