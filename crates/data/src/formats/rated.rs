//! Answers with ratings: UltraFeedback, CodeUltraFeedback and HelpSteer.

use joust_core::{Message, kind_of};
use serde_json::Value;

use super::{Scored, contrast};
use crate::{
    Preference, Result,
    chat::{check_columns, number},
    rows::{Problem, Reading, Row},
};

type Parsed<T> = std::result::Result<T, Problem>;

/// Marks the turns of HelpSteer's longer prompts.
const TURN: &str = "<extra_id_1>";

fn objects<'a>(row: &'a Row, name: &str) -> Parsed<Vec<&'a serde_json::Map<String, Value>>> {
    let value = row.column(name)?;
    let list = value.as_array().ok_or_else(|| format!("column {name} is a list, found {}", kind_of(value)))?;
    let object = |value: &'a Value| {
        value.as_object().ok_or_else(|| format!("column {name} is a list of objects, found {}", kind_of(value)))
    };
    list.iter().map(object).collect()
}

fn text<'a>(fields: &'a serde_json::Map<String, Value>, name: &str) -> Parsed<&'a str> {
    fields.get(name).and_then(Value::as_str).ok_or_else(|| format!("an answer has no text {name}"))
}

fn ultra(row: &Row) -> Parsed<Option<Preference>> {
    check_columns(row)?;
    let mut answers = Vec::new();
    for fields in objects(row, "completions")? {
        let score = fields.get("overall_score").ok_or("an answer has no overall_score")?;
        answers.push(Scored { text: text(fields, "response")?.to_owned(), score: number(score, "overall_score")? });
    }
    Ok(contrast(vec![Message::new("user", row.text("instruction")?)], &answers))
}

/// Reads UltraFeedback's rows: the highest overall score against the lowest, with their difference
/// as margin.
pub(super) fn ultrafeedback(reading: &mut Reading<'_>) -> Result<Vec<Preference>> {
    contrasts(reading, &["instruction", "completions"], ultra)
}

fn code(row: &Row) -> Parsed<Option<Preference>> {
    check_columns(row)?;
    let annotations = objects(row, "annotations")?;
    let mut answers = Vec::new();
    for fields in objects(row, "responses")? {
        let model = text(fields, "model")?;
        let own =
            annotations.iter().filter(|annotation| annotation.get("model").and_then(Value::as_str) == Some(model));
        let ratings: Vec<f64> = own
            .filter_map(|annotation| annotation.get("rating"))
            .map(|value| number(value, "rating"))
            .collect::<Parsed<_>>()?;
        if ratings.is_empty() {
            return Err("an answer has no annotation with the name of its model".into());
        }
        let score = ratings.iter().sum::<f64>() / ratings.len() as f64;
        answers.push(Scored { text: text(fields, "response")?.to_owned(), score });
    }
    Ok(contrast(vec![Message::new("user", row.text("instruction")?)], &answers))
}

/// Reads CodeUltraFeedback's rows: the highest mean rating against the lowest, with their
/// difference as margin.
pub(super) fn code_ultrafeedback(reading: &mut Reading<'_>) -> Result<Vec<Preference>> {
    contrasts(reading, &["instruction", "responses", "annotations"], code)
}

fn contrasts(
    reading: &mut Reading<'_>,
    columns: &[&str],
    parse: fn(&Row) -> Parsed<Option<Preference>>,
) -> Result<Vec<Preference>> {
    let mut pairs = Vec::new();
    for (_, pair) in reading.parse(columns, parse)? {
        match pair {
            Some(pair) => pairs.push(pair),
            None => reading.leave_out("all answers are rated alike"),
        }
    }
    Ok(pairs)
}

/// Cuts a HelpSteer prompt into the messages of its turns.
fn asked(prompt: &str) -> Parsed<Vec<Message>> {
    let (first, rest) = prompt.split_once(TURN).unwrap_or((prompt, ""));
    let mut messages = vec![Message::new("user", first.trim_end())];
    for turn in rest.split(TURN).filter(|turn| !turn.is_empty()) {
        let (role, content) = match (turn.strip_prefix("Assistant"), turn.strip_prefix("User")) {
            (Some(content), _) => ("assistant", content),
            (_, Some(content)) => ("user", content),
            _ => return Err("column prompt has a turn that is neither User's nor Assistant's".into()),
        };
        // A prompt ends with the mark of the turn that answers it.
        if !(role == "assistant" && content.trim().is_empty()) {
            messages.push(Message::new(role, content.trim()));
        }
    }
    Ok(messages)
}

/// Reads a HelpSteer row as a rated answer: the conversation and the response.
pub(crate) fn helpsteer_rating(row: &Row) -> Parsed<(Vec<Message>, String)> {
    check_columns(row)?;
    Ok((asked(row.text("prompt")?)?, row.text("response")?.to_owned()))
}

/// Reads HelpSteer's neighbouring rows of one prompt as preferences by `helpfulness`, with the
/// difference as margin.
pub(super) fn helpsteer(reading: &mut Reading<'_>) -> Result<Vec<Preference>> {
    let parse = |row: &Row| {
        let (messages, text) = helpsteer_rating(row)?;
        Ok((messages, Scored { text, score: number(row.column("helpfulness")?, "helpfulness")? }))
    };
    let mut groups: Vec<(Vec<Message>, Vec<Scored>)> = Vec::new();
    for (_, (messages, answer)) in reading.parse(&["prompt", "response", "helpfulness"], parse)? {
        match groups.last_mut().filter(|(own, _)| *own == messages) {
            Some((_, answers)) => answers.push(answer),
            None => groups.push((messages, vec![answer])),
        }
    }
    let mut pairs = Vec::new();
    for (messages, answers) in groups {
        match contrast(messages, &answers) {
            Some(pair) => pairs.push(pair),
            None => reading.leave_out("no neighbouring row of the same prompt is rated otherwise"),
        }
    }
    Ok(pairs)
}
