//! Rated answers: `prompt`, `completion` and one number an attribute.

use std::path::Path;

use joust_core::Prompt;
use serde_json::Value;

use crate::{
    Error, OnError, Result, Skipped,
    preference::answer,
    read_rows,
    rows::{prompt, refuse, shorten},
};

/// An answer with its ratings.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    /// The prompt.
    pub prompt: Prompt,
    /// Text of the answer.
    pub completion: String,
    /// One an attribute, in the order that was asked for; NaN where the row has none.
    pub ratings: Vec<f64>,
}

fn rating(row: &Value, attributes: &[String]) -> std::result::Result<Rating, String> {
    let column = |name: &str| row.get(name).ok_or_else(|| format!("column {name} is missing"));
    let (asked, completion) = (prompt(column("prompt")?)?, answer(column("completion")?, "completion")?);
    let number = |name: &String| match row.get(name) {
        None | Some(Value::Null) => Ok(f64::NAN),
        Some(value) => value
            .as_f64()
            .ok_or_else(|| format!("{name} is a number or missing, found {}", shorten(&value.to_string()))),
    };
    let ratings: Vec<f64> = attributes.iter().map(number).collect::<std::result::Result<_, _>>()?;
    if ratings.iter().all(|rating| rating.is_nan()) {
        return Err(format!("it rates none of {}", attributes.join(", ")));
    }
    Ok(Rating { prompt: asked, completion, ratings })
}

/// Reads rated answers from JSONL or Parquet.
///
/// # Errors
/// [`Error::Row`] with the line, [`Error::Empty`] if nothing is left.
pub fn read_ratings(path: &Path, attributes: &[String], on_error: OnError) -> Result<(Vec<Rating>, Skipped)> {
    let mut skipped = Skipped::new();
    let mut rated = Vec::new();
    for (line, row) in read_rows(path, on_error, &mut skipped)? {
        match rating(&row, attributes) {
            Ok(rating) => rated.push(rating),
            Err(problem) => refuse(path, line, problem, (on_error, &mut skipped))?,
        }
    }
    if rated.is_empty() {
        let expected = "rows with `prompt`, `completion` and an attribute";
        return Err(Error::Empty { path: path.into(), skipped: skipped.values().sum(), expected });
    }
    Ok((rated, skipped))
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
        let (rated, skipped) = read_ratings(&path, &attributes, OnError::Skip).expect("two rows");
        assert_eq!(rated.len(), 2);
        assert_eq!((rated[0].completion.as_str(), rated[0].ratings.as_slice()), ("Ho", [4.0, 3.0].as_slice()));
        assert!(rated[1].ratings[0].is_nan() && rated[1].ratings[1] == 1.5);
        assert_eq!(skipped.values().sum::<usize>(), 2, "{skipped:?}");
        let error = read_ratings(&path, &attributes, OnError::Fail).expect_err("refused").to_string();
        assert!(error.contains("it rates none of helpfulness, correctness"), "{error}");
    }
}
