//! Parsing of single fields: each returns a valid type, or an error with the field's path, its value and what is wanted.

use std::ops::RangeInclusive;

use joust_core::{RecordId, RunId, SCHEMA};

use crate::{
    Error, Result,
    limits::{DEFAULT_PAGE, MAX_NAME_BYTES, MAX_PAGE, MAX_TEXT_BYTES, MAX_TOKENS},
};

/// Parses a message that must be set.
///
/// # Errors
/// [`Error::Missing`], or what is wrong inside.
pub fn required<W, T: TryFrom<W, Error = Error>>(field: &str, message: Option<W>) -> Result<T> {
    message.ok_or_else(|| Error::missing(field, "a message"))?.try_into().map_err(|error: Error| error.at(field))
}

/// Parses a message that may be absent.
///
/// # Errors
/// What is wrong inside.
pub fn optional<W, T: TryFrom<W, Error = Error>>(field: &str, message: Option<W>) -> Result<Option<T>> {
    message.map(|message| required(field, Some(message))).transpose()
}

/// Parses repeated messages, as many as `count` allows.
///
/// # Errors
/// [`Error::Value`] for another number, or what is wrong inside, with the index.
pub fn list<W, T: TryFrom<W, Error = Error>>(
    field: &str,
    messages: Vec<W>,
    count: RangeInclusive<usize>,
) -> Result<Vec<T>> {
    counted(field, messages.len(), count)?;
    let one = |(i, message): (usize, W)| message.try_into().map_err(|error: Error| error.at(format!("{field}[{i}]")));
    messages.into_iter().enumerate().map(one).collect()
}

/// Checks a number of entries.
///
/// # Errors
/// [`Error::Value`] if it is outside `count`.
pub fn counted(field: &str, found: usize, count: RangeInclusive<usize>) -> Result<()> {
    let wanted = || match (count.start(), count.end()) {
        (0, most) => format!("at most {most}"),
        (least, most) if least == most => format!("{least}"),
        (least, most) => format!("{least} to {most}"),
    };
    if count.contains(&found) { Ok(()) } else { Err(Error::value(field, format!("{found} entries"), wanted())) }
}

/// Parses the number of an enumeration's value `W`.
///
/// # Errors
/// [`Error::Value`] for a number without a value, or for the unspecified one.
pub fn choice<W: TryFrom<i32>, T: TryFrom<W, Error = Error>>(field: &str, number: i32) -> Result<T> {
    let known = W::try_from(number).map_err(|_| {
        Error::value(field, number, "a value that this version knows; use client and server of one version")
    })?;
    known.try_into().map_err(|error: Error| error.at(field))
}

/// Parses a record id.
///
/// # Errors
/// [`Error::Value`] unless it is 16 bytes.
pub fn record_id(field: &str, bytes: &[u8]) -> Result<RecordId> {
    let id = <[u8; 16]>::try_from(bytes)
        .map_err(|_| Error::value(field, format!("{} bytes", bytes.len()), "a record id of 16 bytes"))?;
    Ok(RecordId::from_bytes(id))
}

/// Parses record ids, as many as `count` allows.
///
/// # Errors
/// [`Error::Value`] for another number, or for one that is not an id, with its index.
pub fn record_ids(field: &str, ids: &[Vec<u8>], count: RangeInclusive<usize>) -> Result<Vec<RecordId>> {
    counted(field, ids.len(), count)?;
    ids.iter().enumerate().map(|(i, id)| record_id(&format!("{field}[{i}]"), id)).collect()
}

/// Parses the name of a run.
///
/// # Errors
/// [`Error::Value`] for a name that no run can have.
pub fn run_id(field: &str, name: &str) -> Result<RunId> {
    name_of(field, name)?;
    RunId::new(name).map_err(|_| {
        Error::value(
            field,
            format!("{name:?}"),
            "1 to 64 letters, digits, '-', '_' or '.', starting with a letter or digit",
        )
    })
}

/// Parses a name or key that must not be empty.
///
/// # Errors
/// [`Error::Missing`] for an empty one, [`Error::Value`] for one that is too long.
pub fn name(field: &str, text: String) -> Result<String> {
    if text.is_empty() {
        return Err(Error::missing(field, format!("1 to {MAX_NAME_BYTES} bytes")));
    }
    name_of(field, &text)?;
    Ok(text)
}

/// Parses a name that may be empty.
///
/// # Errors
/// [`Error::Value`] for one that is too long.
pub fn optional_name(field: &str, text: String) -> Result<String> {
    name_of(field, &text)?;
    Ok(text)
}

fn name_of(field: &str, text: &str) -> Result<()> {
    if text.len() <= MAX_NAME_BYTES {
        return Ok(());
    }
    Err(Error::value(field, format!("{} bytes", text.len()), format!("at most {MAX_NAME_BYTES}")))
}

/// Parses the BLAKE3 of something.
///
/// # Errors
/// [`Error::Value`] unless it is 64 lower-case hexadecimal digits.
pub fn hash(field: &str, text: String) -> Result<String> {
    let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits {
        return Ok(text);
    }
    Err(Error::value(field, format!("{} bytes", text.len()), "64 lower-case hexadecimal digits"))
}

/// Checks the length of a text, which never stands in the error.
///
/// # Errors
/// [`Error::Value`] for a text that is too long.
pub fn text(field: &str, text: String) -> Result<String> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(text);
    }
    Err(Error::value(field, format!("{} bytes", text.len()), format!("at most {MAX_TEXT_BYTES}")))
}

/// Checks the length of a sequence of token ids.
///
/// # Errors
/// [`Error::Value`] for one that is too long.
pub fn tokens(field: &str, ids: Vec<u32>) -> Result<Vec<u32>> {
    counted(field, ids.len(), 0..=MAX_TOKENS)?;
    Ok(ids)
}

/// Checks that a number is finite.
///
/// # Errors
/// [`Error::Value`] for one that is not.
pub fn finite(field: &str, number: f64) -> Result<f64> {
    if number.is_finite() { Ok(number) } else { Err(Error::value(field, number, "a finite number")) }
}

/// Checks that all numbers are finite.
///
/// # Errors
/// [`Error::Value`] with the index of the first that is not.
pub fn all_finite<N: Copy + Into<f64>>(field: &str, numbers: &[N]) -> Result<()> {
    match numbers.iter().position(|number| !(*number).into().is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::value(format!("{field}[{i}]"), numbers[i].into(), "a finite number")),
    }
}

/// Checks a probability or share.
///
/// # Errors
/// [`Error::Value`] outside [0, 1].
pub fn probability(field: &str, number: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(Error::value(field, number, "a number in [0, 1]")) }
}

/// Parses the schema version of a record.
///
/// # Errors
/// [`Error::Value`] for another version than this build's.
pub fn schema(found: u32) -> Result<u16> {
    if found == u32::from(SCHEMA) {
        return Ok(SCHEMA);
    }
    Err(Error::value("schema", found, format!("{SCHEMA}; use client and server of one version")))
}

/// Parses the size of a page: 0 is the usual size.
///
/// # Errors
/// [`Error::Value`] for more than a page may hold.
pub fn page_size(field: &str, size: u32) -> Result<usize> {
    match size {
        0 => Ok(DEFAULT_PAGE as usize),
        1..=MAX_PAGE => Ok(size as usize),
        _ => Err(Error::value(field, size, format!("at most {MAX_PAGE}, or 0 for {DEFAULT_PAGE}"))),
    }
}
