//! Rated answers: `prompt`, `completion` and one number an attribute.

use std::path::Path;

use joust_core::{Prompt, Reply};

use crate::{
    Format, OnError, Result, Skipped,
    chat::{CHAT_COLUMNS, check_columns, joined, number, prompt, reply},
    formats::helpsteer_rating,
    rows::{Problem, Reading, Row},
};

/// An answer with its ratings.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    /// The prompt.
    pub prompt: Prompt,
    /// The answer.
    pub completion: Reply,
    /// One an attribute, in the order that was asked for; NaN where the row has none.
    pub ratings: Vec<f64>,
}

fn answered(row: &Row, format: Format) -> std::result::Result<(Prompt, Reply), Problem> {
    if format == Format::HelpSteer {
        let (messages, text) = helpsteer_rating(row)?;
        return Ok((Prompt::Chat(messages.into()), Reply::Text(text)));
    }
    check_columns(row)?;
    joined(row, prompt(row, "prompt")?, reply(row, "completion")?)
}

fn rating(row: &Row, attributes: &[String], format: Format) -> std::result::Result<Rating, Problem> {
    let (prompt, completion) = answered(row, format)?;
    let rated = |name: &String| row.get(name).map_or(Ok(f64::NAN), |value| number(value, name));
    let ratings: Vec<f64> = attributes.iter().map(rated).collect::<std::result::Result<_, _>>()?;
    if ratings.iter().all(|rating| rating.is_nan()) {
        return Err(format!("it rates none of {}", attributes.join(", ")));
    }
    Ok(Rating { prompt, completion, ratings })
}

/// Reads rated answers: `prompt` and `completion`, or of HelpSteer `prompt` and `response`, with a
/// number in each attribute that is known.
///
/// # Errors
/// [`crate::Error::Row`] with the line, [`crate::Error::Empty`] if nothing is left.
pub fn read_ratings(
    path: &Path,
    attributes: &[String],
    format: Format,
    on_error: OnError,
) -> Result<(Vec<Rating>, Skipped)> {
    let mut reading = Reading::new(path, on_error);
    let mut columns = [&["prompt", "completion", "response"][..], &CHAT_COLUMNS].concat();
    columns.extend(attributes.iter().map(String::as_str));
    let rated = reading.parse(&columns, |row| rating(row, attributes, format))?;
    let rated = rated.into_iter().map(|(_, rated)| rated).collect();
    reading.some(rated, "rows with `prompt`, an answer and an attribute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_in_order_and_bad_rows_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rated.jsonl");
        let rows = [
            r#"{"prompt": "Hi", "completion": "Ho", "correctness": 3, "helpfulness": 4}"#,
            r#"{"prompt": "Hi", "completion": "Hm", "helpfulness": null, "correctness": 1.5}"#,
            r#"{"prompt": "Hi", "completion": "No", "verbosity": 2}"#,
            r#"{"prompt": "Hi", "completion": "Na", "helpfulness": "good"}"#,
        ];
        std::fs::write(&path, rows.join("\n")).expect("written");
        let attributes = ["helpfulness".to_owned(), "correctness".to_owned()];
        let (rated, skipped) = read_ratings(&path, &attributes, Format::Trl, OnError::Skip).expect("two rows");
        assert_eq!(rated.len(), 2);
        assert_eq!(
            (rated[0].completion.display().as_str(), rated[0].ratings.as_slice()),
            ("Ho", [4.0, 3.0].as_slice())
        );
        assert!(rated[1].ratings[0].is_nan() && rated[1].ratings[1] == 1.5);
        assert_eq!(skipped.values().sum::<usize>(), 2, "{skipped:?}");
        let error = read_ratings(&path, &attributes, Format::Trl, OnError::Fail).expect_err("refused").to_string();
        assert!(error.contains("it rates none of helpfulness, correctness"), "{error}");
    }
}
