//! Answers that revise the best answer so far: a tree of two levels (preference-guided reflective sampling, PRS, <https://arxiv.org/abs/2408.12163>).

use std::sync::Arc;

use joust_core::{Chat, Completion, Message, Player, Prompt, PromptTask, Rollout};
use joust_data::Tokenizer;
use joust_engine::{Engine, SamplePrompt, SampleRequest, Snapshot, Source};
use joust_judges::{CallContext, Judge, JudgeItem, strongest};
use tokio::time::{Duration, Instant};

use crate::{
    Ask, Result,
    answer::{completion, stream, styled},
};

/// How answers are revised.
#[derive(Clone)]
pub struct Revision {
    /// Says which of the first answers is the best.
    pub judge: Arc<dyn Judge>,
    /// What it is asked.
    pub ask: joust_judges::Ask,
    /// Longest wait for its judgements.
    pub timeout: Duration,
    /// What asks the policy for its feedback on the best answer; empty revises without feedback.
    pub feedback: String,
    /// What asks for the better answer.
    pub request: String,
}

impl std::fmt::Debug for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut revision = f.debug_struct("Revision");
        revision.field("judge", &self.judge.name()).field("request", &self.request).finish_non_exhaustive()
    }
}

/// The best answer to a prompt, and what the policy said about it.
struct Draft<'a> {
    place: usize,
    prompt: &'a Prompt,
    text: &'a str,
    feedback: Option<String>,
}

/// Adds answers with the sample indices `samples` that revise each rollout's best one.
///
/// A prompt whose first answers cannot be judged, or whose revision does not fit the context, keeps its first answers.
///
/// # Errors
/// As [`crate::answer()`].
pub(crate) async fn revise(
    (engine, tokenizer, policy): (&Engine, &Tokenizer, &Arc<Snapshot>),
    rollouts: &mut [Rollout],
    samples: std::ops::Range<u32>,
    (ask, revision): (&Ask<'_>, &Revision),
) -> Result<()> {
    let best = best_answers(rollouts, ask.seed, revision).await;
    let draft = |(place, best): (usize, &Option<usize>)| {
        let rollout = &rollouts[place];
        let text = rollout.completions[(*best)?].text.as_str();
        Some(Draft { place, prompt: &rollout.task.prompt, text, feedback: None })
    };
    let mut drafts: Vec<Draft<'_>> = best.iter().enumerate().filter_map(draft).collect();
    let sampler = Sampler { engine, tokenizer, policy, ask, rollouts };
    if !revision.feedback.is_empty() {
        let asked = drafts.iter().map(|draft| criticised(draft, &revision.feedback)).collect();
        // One index beyond the answers' own keys its draws.
        for (at, completions) in sampler.sample(&drafts, samples.end..samples.end + 1, asked).await? {
            drafts[at].feedback = completions.into_iter().next().map(|completion| completion.text);
        }
    }
    let asked = drafts.iter().map(|draft| styled(&revised(draft, revision), ask.style)).collect();
    let revised = sampler.sample(&drafts, samples, asked).await?;
    let revised: Vec<(usize, Vec<Completion>)> =
        revised.into_iter().map(|(at, completions)| (drafts[at].place, completions)).collect();
    for (place, completions) in revised {
        rollouts[place].completions.extend(completions);
    }
    Ok(())
}

/// Returns the best answer of each rollout; `None` where the judgement failed.
async fn best_answers(rollouts: &[Rollout], seed: u64, revision: &Revision) -> Vec<Option<usize>> {
    let items: Vec<JudgeItem> = rollouts.iter().map(|rollout| JudgeItem::of(rollout, revision.ask)).collect();
    let call = CallContext::new(seed, Instant::now() + revision.timeout);
    let judgements = revision.judge.judge(&items, &call).await;
    let best: Vec<Option<usize>> = judgements.iter().map(strongest).collect();
    let failed = best.iter().filter(|best| best.is_none()).count();
    if failed > 0 {
        tracing::warn!(prompts = failed, "first answers could not be judged; these prompts have no revised answers");
    }
    best
}

/// Samples one more time for some rollouts.
struct Sampler<'a> {
    engine: &'a Engine,
    tokenizer: &'a Tokenizer,
    policy: &'a Arc<Snapshot>,
    ask: &'a Ask<'a>,
    rollouts: &'a [Rollout],
}

impl Sampler<'_> {
    /// Answers what is asked about each draft, one prompt a draft, and returns the answers with the draft's place in `drafts`.
    async fn sample(
        &self,
        drafts: &[Draft<'_>],
        samples: std::ops::Range<u32>,
        asked: Vec<Prompt>,
    ) -> Result<Vec<(usize, Vec<Completion>)>> {
        let context = self.policy.config().max_position_embeddings as usize;
        let task = |draft: &Draft<'_>| -> &PromptTask { &self.rollouts[draft.place].task };
        let (mut places, mut prompts) = (Vec::new(), Vec::new());
        for (at, (draft, asked)) in drafts.iter().zip(&asked).enumerate() {
            let prompt_ids = self.tokenizer.encode_prompt(asked)?;
            if prompt_ids.len() < context {
                places.push(at);
                prompts.push(SamplePrompt { position: task(draft).position, prompt_ids, samples: samples.clone() });
            }
        }
        if places.len() < drafts.len() {
            let prompts = drafts.len() - places.len();
            tracing::warn!(
                prompts,
                context,
                "revisions do not fit the context and are left out; shorten sampling.max_new_tokens"
            );
        }
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let expected = prompts.len() * samples.len();
        let request = SampleRequest {
            prompts,
            params: self.ask.params.clone(),
            seed: self.ask.seed,
            stream: stream(drafts.iter().map(task)),
            source: Source::Model(self.policy.clone()),
        };
        let mut answered: Vec<(usize, Vec<Completion>)> = places.into_iter().map(|at| (at, Vec::new())).collect();
        for sampled in self.engine.submit(request).collect(expected).await? {
            answered[sampled.prompt].1.push(completion(self.tokenizer, Player::Revised, sampled)?);
        }
        Ok(answered)
    }
}

/// Asks for feedback on a draft.
fn criticised(draft: &Draft<'_>, question: &str) -> Prompt {
    match draft.prompt {
        Prompt::Text(text) => Prompt::Text(format!("{text}{}\n\n{question}", draft.text)),
        Prompt::Chat(chat) => turns(chat, draft.text, &[("user", question)]),
    }
}

/// Asks for a better answer than a draft; plain text ends with the prompt again, so that it is what goes on.
fn revised(draft: &Draft<'_>, revision: &Revision) -> Prompt {
    let request = revision.request.as_str();
    match (draft.prompt, &draft.feedback) {
        (Prompt::Text(text), None) => Prompt::Text(format!("{text}{}\n\n{request}{text}", draft.text)),
        (Prompt::Text(text), Some(feedback)) => {
            let asked = format!("{text}{}\n\n{}{feedback}", draft.text, revision.feedback);
            Prompt::Text(format!("{asked}\n\n{request}{text}"))
        }
        (Prompt::Chat(chat), None) => turns(chat, draft.text, &[("user", request)]),
        (Prompt::Chat(chat), Some(feedback)) => {
            turns(chat, draft.text, &[("user", &revision.feedback), ("assistant", feedback), ("user", request)])
        }
    }
}

/// Lets a chat go on after an answer.
fn turns(chat: &Chat, answer: &str, turns: &[(&str, &str)]) -> Prompt {
    Prompt::Chat(chat.answered(&answer.into()).with(turns.iter().map(|(role, content)| Message::new(*role, *content))))
}

#[cfg(test)]
mod tests;
