//! Searching and splitting of texts, by characters.

use super::{
    call::{Args, index, required},
    error::{Fault, Result},
    strings::text_argument,
    unicode::is_space,
    value::Value,
};

/// A part of a text between two characters, with the place of its first.
struct Window<'t> {
    text: &'t str,
    start: usize,
}

/// Cuts the part that `start` and `end` of a search name; `None` where there is no such part.
fn window<'t>(text: &'t str, bounds: [Option<Value>; 2], name: &str) -> Result<Option<Window<'t>>> {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let [start, end] = bounds;
    let bound = |value: Option<Value>, default: i64| match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => index(&value, name).map(|at| if at < 0 { at.saturating_add(length).max(0) } else { at }),
    };
    let (start, end) = (bound(start, 0)?, bound(end, length)?.min(length));
    if start > end {
        return Ok(None);
    }
    let place = |at: i64| {
        let at = usize::try_from(at).unwrap_or(0);
        text.char_indices().nth(at).map_or(text.len(), |(at, _)| at)
    };
    Ok(Some(Window { text: &text[place(start)..place(end)], start: usize::try_from(start).unwrap_or(0) }))
}

/// Counts or finds a part of a text.
pub(crate) fn find(text: &str, name: &str, args: Args) -> Result<Value> {
    let [part, start, end] = args.positional(name)?;
    let part = text_argument(&required(part, name)?, name)?;
    let window = window(text, [start, end], name)?;
    if name == "count" {
        let count = window.map_or(0, |window| match part.is_empty() {
            true => window.text.chars().count() + 1,
            false => window.text.matches(&*part).count(),
        });
        return Ok(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)));
    }
    let from_right = name.starts_with('r');
    let found = window.and_then(|window| {
        let at = if from_right { window.text.rfind(&*part) } else { window.text.find(&*part) };
        at.map(|at| window.start + window.text[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::Int(i64::try_from(at).unwrap_or(i64::MAX))),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(Fault::new(format!("{name} finds no such part"))),
    }
}

/// Returns whether a text begins or ends with a part, or one of several.
pub(crate) fn affix(text: &str, name: &str, args: Args) -> Result<Value> {
    let [part, start, end] = args.positional(name)?;
    let parts = match required(part, name)? {
        Value::Tuple(items) => items.list.iter().map(|item| text_argument(item, name)).collect::<Result<_>>()?,
        part => vec![text_argument(&part, name)?],
    };
    let Some(window) = window(text, [start, end], name)? else { return Ok(Value::Bool(false)) };
    Ok(Value::Bool(parts.iter().any(|part| match name {
        "startswith" => window.text.starts_with(&**part),
        _ => window.text.ends_with(&**part),
    })))
}

/// Splits at white space, at most `limit` times.
pub(crate) fn split_words(text: &str, limit: usize, from_right: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_matches(is_space);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        match cut.filter(|_| words.len() < limit) {
            None => {
                words.push(rest);
                break;
            }
            Some(at) if from_right => {
                let end = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                words.push(&rest[end..]);
                rest = rest[..at].trim_end_matches(is_space);
            }
            Some(at) => {
                words.push(&rest[..at]);
                rest = rest[at..].trim_start_matches(is_space);
            }
        }
    }
    if from_right {
        words.reverse();
        // What is left over keeps the white space at its start.
        if words.len() > limit {
            let first = words.first().map_or(0, |word| word.len());
            let lead = text.len() - text.trim_start_matches(is_space).len();
            words[0] = &text[..lead + first];
        }
    } else if words.len() > limit {
        let last = words.last().map_or(0, |word| word.len());
        let start = text.trim_end_matches(is_space).len() - last;
        let at = words.len() - 1;
        words[at] = &text[start..];
    }
    words
}
