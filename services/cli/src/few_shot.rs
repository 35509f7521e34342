//! `joust few-shot`: turns the labelled pairs of many users into prompts that show what their user prefers (FSPO).
//!
//! See "FSPO: Few-Shot Preference Optimization of Synthetic Preference Data in LLMs Elicits Effective Personalization to Real Users", Singh et al.,
//! <https://arxiv.org/abs/2502.19312>.

use std::{collections::BTreeMap, fs, process::ExitCode};

use anyhow::{Context, ensure};
use joust_core::{
    Prompt,
    rng::{Stream, permutation},
};
use joust_data::{OnError, Preference, PreferenceOptions, read_preferences};
use serde_json::{Value, json};

use crate::args::FewShotArgs;

/// Runs the verb.
///
/// # Errors
/// Bad input, by name; a file that exists is left as it was.
pub fn run(args: &FewShotArgs) -> anyhow::Result<ExitCode> {
    let (pairs, out, shots) = (args.pairs.display(), args.out.display(), args.shots as usize);
    ensure!(!args.out.exists(), "{out} exists; remove it or write another --out");
    ensure!(shots > 0, "--shots is 0; show at least one pair");
    let (preferences, _) = read_preferences(&args.pairs, &PreferenceOptions::new(OnError::Fail))?;
    let mut users: BTreeMap<&str, Vec<&Preference>> = BTreeMap::new();
    for preference in &preferences {
        let user = preference.user.as_deref();
        let user = user.with_context(|| format!("{pairs}: a pair has no column user, which says whose it is"))?;
        users.entry(user).or_default().push(preference);
    }
    let mut lines = String::new();
    let (mut written, mut left) = (0, 0);
    for (position, own) in preferences.iter().enumerate() {
        let others = users.get(own.user.as_deref().unwrap_or_default()).into_iter().flatten();
        let others: Vec<&Preference> = others.copied().filter(|other| other.prompt != own.prompt).collect();
        if others.len() < shots {
            left += 1;
            continue;
        }
        let order = permutation(others.len(), args.seed, Stream::Shuffle, position as u64);
        let shown: Vec<&Preference> = order.iter().take(shots).map(|i| others[*i]).collect();
        lines.push_str(&format!("{}\n", row(own, &shown)));
        written += 1;
    }
    ensure!(written > 0, "{pairs}: no user has pairs of {} prompts, {shots} to show and one to ask", shots + 1);
    fs::write(&args.out, lines).with_context(|| format!("failed to write {out}"))?;
    if left > 0 {
        eprintln!("left out {left} pairs whose user has fewer than {shots} pairs of other prompts");
    }
    println!("{written} rows with {shots} pairs each written to {out}");
    Ok(ExitCode::SUCCESS)
}

/// Joins the shown pairs with the prompt, in the columns that `sft`, `train-reward` and `run` read.
fn row(own: &Preference, shown: &[&Preference]) -> Value {
    let mut row = json!({ "user": own.user, "chosen": own.chosen, "rejected": own.rejected, "completion": own.chosen });
    match before(&own.prompt, &show(shown)) {
        Prompt::Text(text) => row["prompt"] = text.into(),
        Prompt::Chat(chat) => {
            row["prompt"] = json!(chat.messages);
            let columns = [("tools", chat.tools), ("documents", chat.documents)];
            let kwargs = ("chat_template_kwargs", chat.chat_template_kwargs.map(Value::Object));
            for (name, value) in columns.into_iter().chain([kwargs]) {
                if let Some(value) = value {
                    row[name] = value;
                }
            }
        }
    }
    row
}

/// Writes pairs as a reader would show them.
fn show(pairs: &[&Preference]) -> String {
    let text = |pair: &&Preference| {
        let (asked, chosen, rejected) = (pair.prompt.display(), pair.chosen.display(), pair.rejected.display());
        format!("Asked: {asked}\nPreferred: {}\nNot preferred: {}\n\n", chosen.trim(), rejected.trim())
    };
    pairs.iter().map(text).collect()
}

/// Puts text before a prompt; of a conversation it becomes the system's message, or the beginning of it.
fn before(prompt: &Prompt, text: &str) -> Prompt {
    match prompt {
        Prompt::Text(prompt) => Prompt::Text(format!("{text}{prompt}")),
        Prompt::Chat(chat) => {
            let has_system = chat.messages.first().is_some_and(|first| first.role() == "system");
            Prompt::Chat(chat.instructed(if has_system { text } else { text.trim_end() }, ""))
        }
    }
}

#[cfg(test)]
mod tests {
    use joust_core::Message;

    use super::*;

    #[test]
    fn a_conversation_is_told_by_its_system() {
        let message = |role: &str, content: &str| Message::new(role, content);
        let with = [message("system", "Be kind."), message("user", "Hi")];
        let told = before(&Prompt::Chat(with.to_vec().into()), "Asked: x\n\n");
        let expected = vec![message("system", "Asked: x\n\nBe kind."), message("user", "Hi")];
        assert_eq!(told, Prompt::Chat(expected.into()));
        let told = before(&Prompt::Chat(with[1..].to_vec().into()), "Asked: x\n\n");
        assert_eq!(told, Prompt::Chat(vec![message("system", "Asked: x"), message("user", "Hi")].into()));
    }
}
