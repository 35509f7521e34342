//! Preference data: `prompt`, `chosen` and `rejected`, or the last two alone with a prompt that
//! they share.

use std::path::Path;

use joust_core::{Prompt, Reply};
use serde_json::Value;

use crate::{
    OnError, Result, Skipped,
    chat::{CHAT_COLUMNS, chat, check_columns, joined, label, number, prompt, reply, text_prompt},
    formats::{self, Format},
    rows::{Problem, Reading, Row},
};

/// A prompt with a better and a worse answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// The prompt.
    pub prompt: Prompt,
    /// The better answer.
    pub chosen: Reply,
    /// The worse answer.
    pub rejected: Reply,
    /// By how much chosen is better, where the data says so; of TRL's forms read only where it is
    /// asked for.
    pub margin: Option<f64>,
    /// Whose preference it is, where the data says so.
    pub user: Option<String>,
}

/// A prompt with an answer that is good or bad.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpaired {
    /// The prompt.
    pub prompt: Prompt,
    /// The answer.
    pub completion: Reply,
    /// Whether it is a good one.
    pub label: bool,
}

/// How preferences are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreferenceOptions {
    /// What a bad row does.
    pub on_error: OnError,
    /// Which form the rows have.
    pub format: Format,
    /// What becomes of the column `margin`.
    pub margins: Margins,
}

/// What becomes of the column `margin`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Margins {
    /// Nothing reads it.
    #[default]
    Ignored,
    /// Each row must have a finite number in it.
    Needed,
    /// Each row must have a finite number of at least 0 in it.
    AtLeastZero,
}

impl PreferenceOptions {
    /// Reads TRL's forms without margins.
    pub fn new(on_error: OnError) -> Self {
        Self { on_error, format: Format::Trl, margins: Margins::Ignored }
    }
}

/// Columns of TRL's forms of preferences.
pub(crate) const COLUMNS: [&str; 5] = ["prompt", "chosen", "rejected", "margin", "user"];

/// Cuts the prompt that two texts share, as TRL's `extract_prompt` does.
fn shared_text(row: &Row, chosen: &str, rejected: &str) -> std::result::Result<Preference, Problem> {
    let pairs = || chosen.char_indices().zip(rejected.chars());
    let end = match pairs().find(|((_, a), b)| a != b) {
        // A space before the difference belongs to the answers' first words.
        Some(((at, _), _)) => at - usize::from(chosen[..at].ends_with(' ')),
        // One text goes on where the other ends: both keep the last character that they share.
        None => pairs().last().map_or(0, |((at, _), _)| at),
    };
    if end == 0 {
        return Err("chosen and rejected share no beginning that could be the prompt".into());
    }
    let (prompt, cut) = (text_prompt(row, &chosen[..end])?, |text: &str| Reply::Text(text[end..].to_owned()));
    Ok(Preference { prompt, chosen: cut(chosen), rejected: cut(rejected), margin: None, user: None })
}

/// Takes the prompt out of two answers: what both begin with.
pub(crate) fn shared_prompt(row: &Row, chosen: Reply, rejected: Reply) -> std::result::Result<Preference, Problem> {
    match (chosen, rejected) {
        (Reply::Text(chosen), Reply::Text(rejected)) => shared_text(row, &chosen, &rejected),
        (Reply::Messages(chosen), Reply::Messages(rejected)) => {
            let same = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            let end = same.min(chosen.len().min(rejected.len()) - 1);
            if end == 0 {
                return Err("chosen and rejected share no first message that could be the prompt".into());
            }
            Ok(Preference {
                prompt: Prompt::Chat(chat(row, chosen[..end].to_vec())?),
                chosen: Reply::Messages(chosen[end..].to_vec()),
                rejected: Reply::Messages(rejected[end..].to_vec()),
                margin: None,
                user: None,
            })
        }
        _ => Err("one of chosen and rejected is text, the other messages".into()),
    }
}

/// Joins a prompt with both answers; what the answers repeat of it is there once.
fn explicit(row: &Row, chosen: Reply, rejected: Reply) -> std::result::Result<Preference, Problem> {
    let asked = prompt(row, "prompt")?;
    let (first, chosen) = joined(row, asked.clone(), chosen)?;
    let (second, rejected) = joined(row, asked, rejected)?;
    if first != second {
        return Err("chosen and rejected do not answer the same prompt".into());
    }
    Ok(Preference { prompt: first, chosen, rejected, margin: None, user: None })
}

/// Reads one of TRL's forms.
pub(crate) fn preference(row: &Row) -> std::result::Result<Preference, Problem> {
    check_columns(row)?;
    let (chosen, rejected) = (reply(row, "chosen")?, reply(row, "rejected")?);
    if chosen == rejected {
        return Err("chosen and rejected are the same".into());
    }
    let mut preference = match row.has("prompt") {
        true => explicit(row, chosen, rejected)?,
        false => shared_prompt(row, chosen, rejected)?,
    };
    preference.user = match row.get("user") {
        Some(Value::String(user)) => Some(user.clone()),
        Some(Value::Number(user)) => Some(user.to_string()),
        _ => None,
    };
    Ok(preference)
}

/// Reads a row's margin as far as it is asked for.
fn margin(row: &Row, wanted: Margins) -> std::result::Result<Option<f64>, Problem> {
    if wanted == Margins::Ignored {
        return Ok(None);
    }
    let margin = number(row.column("margin")?, "margin")?;
    if wanted == Margins::AtLeastZero && margin < 0.0 {
        return Err("column margin is negative, which would turn the preference around".into());
    }
    Ok(Some(margin))
}

/// Reads preference pairs.
///
/// # Errors
/// [`crate::Error::Row`] with the line, [`crate::Error::Empty`] if nothing is left.
pub fn read_preferences(path: &Path, options: &PreferenceOptions) -> Result<(Vec<Preference>, Skipped)> {
    let mut reading = Reading::new(path, options.on_error);
    let pairs = match options.format {
        Format::Trl => {
            let parse = |row: &Row| {
                let mut preference = preference(row)?;
                preference.margin = margin(row, options.margins)?;
                Ok(preference)
            };
            reading.parse(&[&COLUMNS[..], &CHAT_COLUMNS].concat(), parse)?.into_iter().map(|(_, pair)| pair).collect()
        }
        format => formats::preferences(&mut reading, format)?,
    };
    reading.some(pairs, options.format.expected())
}

fn unpaired(row: &Row) -> std::result::Result<Unpaired, Problem> {
    check_columns(row)?;
    let (prompt, completion) = joined(row, prompt(row, "prompt")?, reply(row, "completion")?)?;
    Ok(Unpaired { prompt, completion, label: label(row.column("label")?)? })
}

/// Reads answers with labels: `prompt`, `completion` and `label` (true, false, 1, 0, or these as
/// text).
///
/// # Errors
/// As [`read_preferences`].
pub fn read_unpaired(path: &Path, on_error: OnError) -> Result<(Vec<Unpaired>, Skipped)> {
    let mut reading = Reading::new(path, on_error);
    let columns = [&["prompt", "completion", "label"][..], &CHAT_COLUMNS].concat();
    let rows = reading.parse(&columns, unpaired)?.into_iter().map(|(_, row)| row).collect();
    reading.some(rows, "rows with `prompt`, `completion` and `label`")
}
