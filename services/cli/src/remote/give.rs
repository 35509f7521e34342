//! `joust run prompts` and `joust pairs add`: what people have, given to a run.
//!
//! Calls are named by the file's bytes, so that a file that was given before, or in part before a cut, adds nothing twice.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;
use joust_core::{Prompt, Reply};
use joust_data::{OnError, Preference, PreferenceOptions, read_preferences, read_prompts};
use joust_proto::{
    common::v1::{Message, Purpose},
    coordinator::v1 as wire,
    limits::MAX_ITEMS,
};
use serde_json::json;

use super::{connect, said};
use crate::args::GiveArgs;

/// Most bytes of text in one call; the limit of a message is four times as high.
const CALL_BYTES: usize = 4 << 20;

/// Adds the prompts of a file to a run.
///
/// # Errors
/// A file that cannot be used, no cluster, or what it refuses.
pub async fn prompts(args: GiveArgs) -> anyhow::Result<ExitCode> {
    let (rows, _) = read_prompts(&args.file, OnError::Fail).map_err(unusable)?;
    let prompts: Vec<Prompt> = rows.into_iter().map(|(_, prompt)| prompt).collect();
    let key = key(&args.file)?;
    let mut client = connect(args.at.cluster.folder())?;
    let mut added = 0;
    for (index, call) in calls(prompts, prompt_bytes).into_iter().enumerate() {
        let request = wire::SubmitPromptsRequest {
            run_id: args.run.clone(),
            prompts: call.into_iter().map(Into::into).collect(),
            purpose: Purpose::Train.into(),
            idempotency_key: format!("{key}-{index}"),
        };
        added += client.submit_prompts(request).await.map_err(said)?.into_inner().task_ids.len();
    }
    match args.at.json {
        true => println!("{}", json!({ "run": args.run, "added": added })),
        false => println!("run {} has the {added} prompts of {}", args.run, args.file.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the preferences of a file to a run.
///
/// # Errors
/// As [`prompts`].
pub async fn preferences(args: GiveArgs) -> anyhow::Result<ExitCode> {
    let (pairs, _) = read_preferences(&args.file, &PreferenceOptions::new(OnError::Fail)).map_err(unusable)?;
    let key = key(&args.file)?;
    let mut client = connect(args.at.cluster.folder())?;
    let mut added = 0;
    let bytes =
        |pair: &Preference| prompt_bytes(&pair.prompt) + reply_bytes(&pair.chosen) + reply_bytes(&pair.rejected);
    for (index, call) in calls(pairs, bytes).into_iter().enumerate() {
        let request = wire::SubmitFeedbackRequest {
            run_id: args.run.clone(),
            feedback: call.into_iter().map(feedback).collect(),
            idempotency_key: format!("{key}-{index}"),
        };
        added += client.submit_feedback(request).await.map_err(said)?.into_inner().added;
    }
    match args.at.json {
        true => println!("{}", json!({ "run": args.run, "added": added })),
        false => println!("run {} has the {added} preferences of {}", args.run, args.file.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what is wrong with a file; no run file's setting can leave its lines out here.
fn unusable(error: joust_data::Error) -> anyhow::Error {
    match error {
        joust_data::Error::Row { path, line, problem } => {
            anyhow::anyhow!("{}:{line}: {problem}; mend the line, nothing was added", path.display())
        }
        error => error.into(),
    }
}

fn feedback(pair: Preference) -> wire::Feedback {
    let (first, first_messages) = answer(pair.chosen);
    let (second, second_messages) = answer(pair.rejected);
    wire::Feedback {
        prompt: Some(pair.prompt.into()),
        first,
        second,
        first_messages,
        second_messages,
        preference: wire::Preference::First.into(),
        author: pair.user.unwrap_or_default(),
    }
}

fn answer(reply: Reply) -> (String, Vec<Message>) {
    match reply {
        Reply::Text(text) => (text, Vec::new()),
        Reply::Messages(messages) => (String::new(), messages.into_iter().map(Into::into).collect()),
    }
}

fn key(file: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    Ok(format!("file-{}", blake3::hash(&bytes).to_hex()))
}

fn prompt_bytes(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Text(text) => text.len(),
        chat @ Prompt::Chat(_) => json!(chat).to_string().len(),
    }
}

fn reply_bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Text(text) => text.len(),
        messages @ Reply::Messages(_) => json!(messages).to_string().len(),
    }
}

/// Cuts a list into calls that a message can hold.
fn calls<T>(list: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut calls, mut size): (Vec<Vec<T>>, usize) = (Vec::new(), 0);
    for entry in list {
        let own = bytes(&entry);
        match calls.last_mut().filter(|call| call.len() < MAX_ITEMS && size + own <= CALL_BYTES) {
            Some(call) => call.push(entry),
            None => {
                size = 0;
                calls.push(vec![entry]);
            }
        }
        size += own;
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_hold_so_many_and_so_much() {
        let lengths = |list: Vec<usize>| calls(list, |bytes| *bytes).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(vec![1; 2 * MAX_ITEMS + 1]), [MAX_ITEMS, MAX_ITEMS, 1]);
        assert_eq!(lengths(vec![CALL_BYTES, 1, CALL_BYTES - 1, 1]), [1, 2, 1]);
        assert!(lengths(Vec::new()).is_empty());
    }
}
