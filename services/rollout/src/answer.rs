//! From prompt tasks to rollouts: tokenise, sample, decode.

use std::{collections::VecDeque, sync::Arc};

use joust_core::{Completion, Player, Prompt, PromptTask, Purpose, Rollout, rng::Stream};
use joust_data::Tokenizer;
use joust_engine::{CompletionStream, Engine, SamplePrompt, SampleRequest, Sampled, SamplingParams, Snapshot, Source};

use crate::{Error, Result, Revision, revise::revise, rollout_of};

/// How prompts are answered.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How answers are drawn.
    pub params: &'a SamplingParams,
    /// Seed of the run.
    pub seed: u64,
    /// Who gives each answer, by sample index.
    pub players: &'a [Player],
    /// What comes before the prompts of [`Player::Styled`].
    pub style: &'a str,
    /// How [`Player::Revised`] answers.
    pub revision: Option<&'a Revision>,
}

/// Whose weights answer.
#[derive(Debug, Clone, Copy)]
pub struct Models<'a> {
    /// Answers as [`Player::Policy`].
    pub policy: &'a Arc<Snapshot>,
    /// Answers as [`Player::Reference`].
    pub reference: &'a Arc<Snapshot>,
    /// Answers as [`Player::Ema`].
    pub ema: Option<&'a Arc<Snapshot>>,
    /// Answers as [`Player::Past`].
    pub past: Option<&'a Arc<Snapshot>>,
    /// Weight of the reference in [`Player::Mixture`], in [0, 1].
    pub mixture_coef: f64,
}

impl<'a> Models<'a> {
    /// Takes one model for policy and reference.
    pub fn alone(policy: &'a Arc<Snapshot>) -> Self {
        Self { policy, reference: policy, ema: None, past: None, mixture_coef: 0.0 }
    }

    /// Returns who gives the answers of a run of players that [`together`] allows; `first` is the sample index of the first.
    fn source(&self, players: &[Player], first: u32) -> Result<Source> {
        let Self { policy, reference, mixture_coef: coef, .. } = *self;
        let model = match players[0] {
            Player::Policy | Player::Mixture if players.contains(&Player::Mixture) => {
                let mixed = (first..).zip(players).filter(|(_, player)| **player == Player::Mixture);
                let mixed = mixed.map(|(sample, _)| sample).collect();
                return Ok(Source::Mixture { policy: policy.clone(), reference: reference.clone(), coef, mixed });
            }
            Player::Policy | Player::Mixture | Player::Styled | Player::Revised => Some(policy),
            Player::Reference => Some(reference),
            Player::Ema => self.ema,
            Player::Past => self.past,
        };
        model.map(|model| Source::Model(model.clone())).ok_or(Error::Player { player: players[0] })
    }
}

/// Returns whether one request can ask both players.
fn together(a: Player, b: Player) -> bool {
    let reads_policy = |player| matches!(player, Player::Policy | Player::Mixture);
    a == b || (reads_policy(a) && reads_policy(b))
}

/// Answers on their way, in the order in which they finish: one request a run of players that read the same weights, so that the batch
/// depends on nothing else. Dropping it stops the work.
pub(crate) struct Answers<'a> {
    engine: &'a Engine,
    tokenizer: &'a Tokenizer,
    /// Who answers in each request, and the sample index of the first.
    waiting: VecDeque<(&'a [Player], u32, SampleRequest)>,
    now: Option<(&'a [Player], u32, CompletionStream)>,
    /// Answers that are missing.
    left: usize,
}

impl<'a> Answers<'a> {
    /// Sets up the requests for tasks that read as `prompt_ids`; all players answer but the revised.
    pub(crate) fn new(
        engine: &'a Engine,
        tokenizer: &'a Tokenizer,
        models: Models<'_>,
        (tasks, prompt_ids): (&[PromptTask], &[Vec<u32>]),
        ask: &Ask<'a>,
    ) -> Result<Self> {
        let own = ask.players.iter().take_while(|player| **player != Player::Revised).count();
        let (mut waiting, mut first) = (VecDeque::new(), 0u32);
        for group in ask.players[..own].chunk_by(|a, b| together(*a, *b)) {
            let samples = first..first + group.len() as u32;
            first = samples.end;
            let styled = match group[0] {
                Player::Styled => Some(encode(tokenizer, tasks, |prompt| styled(prompt, ask.style))?),
                _ => None,
            };
            let prompts = tasks.iter().zip(styled.as_deref().unwrap_or(prompt_ids));
            let prompt = |(task, ids): (&PromptTask, &Vec<u32>)| SamplePrompt {
                position: task.position,
                prompt_ids: ids.clone(),
                samples: samples.clone(),
            };
            let request = SampleRequest {
                prompts: prompts.map(prompt).collect(),
                params: ask.params.clone(),
                seed: ask.seed,
                stream: stream(tasks.iter()),
                source: models.source(group, samples.start)?,
            };
            waiting.push_back((group, samples.start, request));
        }
        Ok(Self { engine, tokenizer, waiting, now: None, left: tasks.len() * own })
    }

    /// Waits for the next answer, and returns it with the index of its prompt; `None` when all are there.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, Completion)>> {
        loop {
            if let Some((group, first, finished)) = &mut self.now {
                match finished.next().await {
                    Some(Ok(sampled)) => {
                        self.left = self.left.saturating_sub(1);
                        let (prompt, player) = (sampled.prompt, group[(sampled.sample_index - *first) as usize]);
                        return Some(completion(self.tokenizer, player, sampled).map(|answer| (prompt, answer)));
                    }
                    Some(Err(error)) => return Some(Err(error.into())),
                    None => self.now = None,
                }
            }
            let Some((group, first, request)) = self.waiting.pop_front() else {
                // An engine that stopped says nothing more.
                return (std::mem::take(&mut self.left) > 0).then(|| Err(joust_engine::Error::Stopped.into()));
            };
            self.now = Some((group, first, self.engine.submit(request)));
        }
    }
}

/// Answers tasks of one purpose, as `Answers` does, then lets the revised answers follow.
///
/// # Errors
/// [`crate::Error`] if a prompt does not tokenise, the engine refuses it, or a player cannot answer in this build.
pub async fn answer(
    engine: &Engine,
    tokenizer: &Tokenizer,
    models: Models<'_>,
    tasks: &[PromptTask],
    ask: &Ask<'_>,
) -> Result<Vec<Rollout>> {
    let prompt_ids = encode(tokenizer, tasks, Prompt::clone)?;
    let mut completions: Vec<Vec<Completion>> = tasks.iter().map(|_| Vec::new()).collect();
    let mut answers = Answers::new(engine, tokenizer, models, (tasks, &prompt_ids), ask)?;
    while let Some(finished) = answers.next().await {
        let (prompt, answer) = finished?;
        completions[prompt].push(answer);
    }
    completions.iter_mut().for_each(|own| own.sort_by_key(|answer| answer.sample_index));
    let own = ask.players.iter().take_while(|player| **player != Player::Revised).count();
    let all = tasks.iter().zip(prompt_ids).zip(completions);
    let mut rollouts: Vec<Rollout> = all.map(|((task, ids), completions)| rollout_of(task, ids, completions)).collect();
    if own < ask.players.len() {
        let revision = ask.revision.ok_or(Error::Player { player: Player::Revised })?;
        let samples = own as u32..ask.players.len() as u32;
        revise((engine, tokenizer, models.policy), &mut rollouts, samples, (ask, revision)).await?;
        // What a rollout is called depends on all of its answers.
        rollouts = rollouts.into_iter().map(|r| rollout_of(&r.task, r.prompt_ids, r.completions)).collect();
    }
    Ok(rollouts)
}

pub(crate) fn encode(
    tokenizer: &Tokenizer,
    tasks: &[PromptTask],
    ask: impl Fn(&Prompt) -> Prompt,
) -> Result<Vec<Vec<u32>>> {
    tasks.iter().map(|task| Ok(tokenizer.encode_prompt(&ask(&task.prompt))?)).collect()
}

/// Puts a text before a prompt; of a chat before its system message, or as one.
pub(crate) fn styled(prompt: &Prompt, style: &str) -> Prompt {
    if style.is_empty() {
        return prompt.clone();
    }
    match prompt {
        Prompt::Text(text) => Prompt::Text(format!("{style}{text}")),
        Prompt::Chat(chat) => Prompt::Chat(chat.instructed(style, "\n")),
    }
}

pub(crate) fn stream<'a>(mut tasks: impl Iterator<Item = &'a PromptTask>) -> Stream {
    if tasks.all(|task| task.purpose == Purpose::Eval) { Stream::Eval } else { Stream::Train }
}

pub(crate) fn completion(tokenizer: &Tokenizer, player: Player, sampled: Sampled) -> Result<Completion> {
    Ok(Completion {
        sample_index: sampled.sample_index,
        player,
        text: tokenizer.decode(&sampled.token_ids)?,
        model: sampled.model,
        token_ids: sampled.token_ids,
        logprobs: sampled.logprobs,
        finish: sampled.finish,
    })
}

#[cfg(test)]
mod tests {
    use joust_core::Message;

    use super::*;

    #[test]
    fn styles_come_before_texts_and_systems() {
        assert_eq!(styled(&Prompt::Text("Sam ran.".into()), "Be sad. "), Prompt::Text("Be sad. Sam ran.".into()));
        let chat = |messages: &[Message]| styled(&Prompt::Chat(messages.to_vec().into()), "Be sad.");
        let asked = Message::new("user", "Hi");
        assert_eq!(
            chat(std::slice::from_ref(&asked)),
            Prompt::Chat(vec![Message::new("system", "Be sad."), asked.clone()].into())
        );
        let both = Prompt::Chat(vec![Message::new("system", "Be sad.\nBe short."), asked.clone()].into());
        assert_eq!(chat(&[Message::new("system", "Be short."), asked]), both);
    }
}
