//! Preferences of people: checked, encoded as the run's policy reads them, and put where its learner finds them.

use joust_config::run::{LossSpec, Reads};
use joust_core::{Example, ExampleSource, Message, Outcome, Prompt, RecordId, Reply, RunId, Target, encode};
use joust_data::AnsweredPair;
use joust_proto::{
    Error, Failure, Reason,
    coordinator::v1 as wire,
    limits::{MAX_ANSWERS, MAX_ITEMS},
    parse::{list, name, optional_name, required, text},
};
use joust_queue::{Item, Queue, Topic};

use crate::{
    cluster::Run,
    given::answer,
    prompts,
    records::unreachable,
    service::{broken, resolved},
    submit::refused,
};

/// A preference between two different answers.
struct Preference {
    prompt: Prompt,
    answers: [Reply; 2],
    /// The better answer; `None` where neither is.
    better: Option<usize>,
    author: String,
}

impl TryFrom<wire::Feedback> for Preference {
    type Error = Error;
    fn try_from(said: wire::Feedback) -> Result<Self, Error> {
        let better = match wire::Preference::try_from(said.preference) {
            Ok(wire::Preference::First) => Some(0),
            Ok(wire::Preference::Second) => Some(1),
            Ok(wire::Preference::Tie) => None,
            _ => return Err(Error::value("preference", said.preference, "first, second or tie")),
        };
        let answers =
            [reply("first", said.first, said.first_messages)?, reply("second", said.second, said.second_messages)?];
        if better.is_some() && answers[0] == answers[1] {
            return Err(Error::value("second", "the answer of first", "another answer, or preference tie"));
        }
        let author = optional_name("author", said.author)?;
        Ok(Self { prompt: required("prompt", said.prompt)?, answers, better, author })
    }
}

/// Parses an answer: a text, or messages of which the assistant's is the last.
fn reply(field: &str, said: String, messages: Vec<joust_proto::common::v1::Message>) -> Result<Reply, Error> {
    let said = text(field, said)?;
    if messages.is_empty() {
        return Ok(Reply::Text(said));
    }
    let field = format!("{field}_messages");
    let messages: Vec<Message> = list(&field, messages, 1..=MAX_ANSWERS)?;
    if !said.is_empty() || messages.last().is_none_or(|last| last.role() != "assistant") {
        return Err(Error::value(field, "other messages", "the assistant's message last, and no text beside them"));
    }
    Ok(Reply::Messages(messages))
}

/// What came of a call: examples that wait for the learner, and preferences that gave none.
pub(crate) struct Taken {
    items: Vec<Item>,
    ties: u64,
}

/// Reads a call's preferences as the run's policy reads them.
///
/// # Errors
/// A [`Failure`] for a field that cannot be used, a text that does not fit the policy's context, or a run whose loss reads no pairs.
pub(crate) fn taken(run: &Run, request: wire::SubmitFeedbackRequest) -> Result<Taken, Failure> {
    let key = name("idempotency_key", request.idempotency_key)?;
    let preferences: Vec<Preference> = list("feedback", request.feedback, 1..=MAX_ITEMS)?;
    let file = resolved(&run.toml).map_err(broken)?.run;
    if let Some(spec) = LossSpec::of(file.loss.name).filter(|spec| spec.reads != Reads::Pairs) {
        let (loss, reads) = (joust_config::works::name_of(&spec.name), spec.reads.describe());
        let reason =
            format!("the loss {loss} of run {} reads {reads}; a preference of people is a pair of answers", run.id);
        return Err(Failure::new(Reason::WrongState, reason));
    }
    let (tokenizer, context) = prompts::of_policy(&file.policy.model).map_err(|error| broken(format!("{error:#}")))?;
    let version = run.models.as_ref().map_or(0, |set| set.policy.version);
    let mut taken = Taken { items: Vec::new(), ties: 0 };
    for (index, preference) in preferences.iter().enumerate() {
        let Some(better) = preference.better else {
            taken.ties += 1;
            continue;
        };
        let field = format!("feedback[{index}]");
        let [chosen, rejected] = [better, 1 - better].map(|which| &preference.answers[which]);
        let pair = tokenizer.encode_pair(&preference.prompt, chosen, rejected);
        let AnsweredPair { prompt_ids, chosen_ids, rejected_ids } = pair.map_err(|error| refused(&field, &error))?;
        let answers = vec![answer(&tokenizer, chosen_ids), answer(&tokenizer, rejected_ids)];
        if let Some(empty) = answers.iter().position(|answer| answer.token_ids.is_empty()) {
            let which = ["first", "second"][[better, 1 - better][empty]];
            return Err(Error::value(format!("{field}.{which}"), "a text without a token", "an answer").into());
        }
        let longest = answers.iter().map(|answer| answer.token_ids.len()).max().unwrap_or_default();
        if prompt_ids.is_empty() || prompt_ids.len() + longest > context {
            let found = format!("a prompt of {} and an answer of {longest} tokens", prompt_ids.len());
            return Err(
                Error::value(field, found, format!("1 to {context} tokens together, the policy's context")).into()
            );
        }
        let example = Example {
            id: id_of(&run.id, &key, (index, preference)),
            prompt_ids,
            answers,
            target: Target::Pair { p: 1.0, win_rates: None },
            rationale: None,
            weight: 1.0,
            policy_version: version,
            source: ExampleSource::Human,
            judge_hash: blake3::hash(format!("person {}", preference.author).as_bytes()).to_hex().to_string(),
        };
        let outcome = Outcome::by_hand(example);
        taken.items.push(Item { id: outcome.id, body: encode(&outcome), trace: None });
    }
    Ok(taken)
}

/// Names an example: the same call made again gives the same, another preference under its key another one.
fn id_of(run: &RunId, key: &str, (index, said): (usize, &Preference)) -> RecordId {
    let (index, prompt) = ((index as u64).to_le_bytes(), encode(&said.prompt));
    let better = [said.better.unwrap_or_default() as u8];
    let [first, second] = [0, 1].map(|which: usize| encode(&said.answers[which]));
    RecordId::derive(&[
        b"feedback",
        run.as_str().as_bytes(),
        key.as_bytes(),
        &index,
        &prompt,
        &first,
        &second,
        &better,
        said.author.as_bytes(),
    ])
}

impl Taken {
    /// Puts the examples: where steps are called for by hand beside all others, else where they wait for a step to join.
    ///
    /// # Errors
    /// A [`Failure`] if the topic is full or the store is away.
    pub(crate) async fn put(
        self,
        queue: &dyn Queue,
        run: &RunId,
        by_hand: bool,
    ) -> Result<wire::SubmitFeedbackResponse, Failure> {
        let topic = if by_hand { Topic::pairs(run) } else { Topic::feedback(run) };
        // Those of a repeat are known, and were added.
        let added = self.items.len() as u64;
        queue.put(&topic, self.items).await.map_err(unreachable)?;
        Ok(wire::SubmitFeedbackResponse { added, ties: self.ties })
    }
}
