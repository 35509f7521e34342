//! `wordwrap`, as Python's `textwrap`.

use super::{
    call::{Args, index},
    error::{Fault, Result},
    state::State,
    strings::text_argument,
    unicode::{is_alpha, is_word, split_lines},
    value::Value,
};

/// White space at which `textwrap` breaks lines.
fn breaks(letter: char) -> bool {
    "\t\n\u{b}\u{c}\r ".contains(letter)
}

/// Wraps a text to a width.
pub(crate) fn word_wrap(state: &mut State, value: &Value, args: Args) -> Result<Value> {
    let [width, long, joint, hyphens] =
        args.places("wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let width = width.as_ref().map_or(Ok(79), |width| index(width, "wordwrap"))?;
    let joint = match joint {
        None | Some(Value::None) => "\n".into(),
        Some(joint) => text_argument(&joint, "wordwrap")?,
    };
    let truth = |value: Option<Value>| value.is_none_or(|value| value.truth());
    let (long, hyphens) = (truth(long), truth(hyphens));
    let Value::Text(text) = value else {
        return Err(Fault::new(format!("wordwrap needs a text, got a {}", value.kind())));
    };
    let lines = split_lines(&text.text, false);
    let Some(width) = usize::try_from(width).ok().filter(|width| *width > 0) else {
        return if lines.is_empty() { Ok(Value::text("")) } else { Err(Fault::new("wordwrap got a width below 1")) };
    };
    let mut wrapped: Vec<String> = Vec::new();
    for line in lines {
        let parts = wrap_line(chunks(line, hyphens), width, (long, hyphens));
        wrapped.push(parts.join(&joint));
    }
    let length = wrapped.iter().map(|line| line.len() + joint.len()).sum();
    state.meter.text(length)?;
    Ok(Value::text(wrapped.join(&joint)))
}

/// Splits a line into words and the space between them, and words at hyphens.
fn chunks(line: &str, hyphens: bool) -> Vec<String> {
    let mut chunks = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let space = breaks(first);
        let end = rest.find(|letter| breaks(letter) != space).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(end);
        if space || !hyphens {
            chunks.push(chunk.to_owned())
        } else {
            split_hyphens(chunk, &mut chunks)
        }
        rest = after;
    }
    chunks
}

/// Splits a word behind hyphens between letters, and around dashes.
fn split_hyphens(word: &str, chunks: &mut Vec<String>) {
    let letters: Vec<char> = word.chars().collect();
    let letter = |at: usize| letters.get(at).copied();
    let is_letter = |at: Option<usize>| at.and_then(letter).is_some_and(|letter| is_alpha(letter) || letter == '_');
    let in_word =
        |at: Option<usize>| at.and_then(letter).is_some_and(|letter| is_word(letter) || "!\"'&.,?".contains(letter));
    let mut start = 0;
    let mut at = 0;
    while at < letters.len() {
        if letters[at] != '-' {
            at += 1;
            continue;
        }
        let end = (at..letters.len()).find(|end| letters[*end] != '-').unwrap_or(letters.len());
        let run = end - at;
        if run >= 2 && in_word(at.checked_sub(1)) && letter(end).is_some_and(is_word) {
            chunks.push(letters[start..at].iter().collect());
            chunks.push(letters[at..end].iter().collect());
            start = end;
        } else if run == 1 {
            let two_before = is_letter(at.checked_sub(1)) && is_letter(at.checked_sub(2))
                || is_letter(at.checked_sub(1))
                    && at.checked_sub(2).and_then(letter) == Some('-')
                    && is_letter(at.checked_sub(3));
            let two_after = is_letter(Some(end)) && (is_letter(Some(end + 1)) || letter(end + 1) == Some('-'));
            if two_before && two_after {
                chunks.push(letters[start..end].iter().collect());
                start = end;
            }
        }
        at = end;
    }
    if start < letters.len() {
        chunks.push(letters[start..].iter().collect());
    }
}

fn wrap_line(mut chunks: Vec<String>, width: usize, options: (bool, bool)) -> Vec<String> {
    let (long, hyphens) = options;
    let count = |text: &String| text.chars().count();
    let blank = |text: &String| text.chars().all(super::unicode::is_space);
    let mut lines: Vec<String> = Vec::new();
    chunks.reverse();
    while !chunks.is_empty() {
        let (mut line, mut length): (Vec<String>, usize) = (Vec::new(), 0);
        if !lines.is_empty() && chunks.last().is_some_and(blank) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.pop_if(|chunk| length + count(chunk) <= width) {
            length += count(&chunk);
            line.push(chunk);
        }
        if let Some(chunk) = chunks.last_mut()
            && count(chunk) > width
        {
            if long {
                line.push(cut(chunk, width - length, hyphens));
            } else if line.is_empty() {
                line.extend(chunks.pop());
            }
        }
        if line.last().is_some_and(blank) {
            line.pop();
        }
        if !line.is_empty() {
            lines.push(line.concat());
        }
    }
    lines
}

/// Cuts the start of a word that is longer than a line; behind a hyphen if there is one.
fn cut(chunk: &mut String, space: usize, hyphens: bool) -> String {
    let letters: Vec<char> = chunk.chars().collect();
    let mut end = space;
    if hyphens && letters.len() > space {
        let hyphen = letters[..space].iter().rposition(|letter| *letter == '-');
        if let Some(hyphen) = hyphen.filter(|hyphen| letters[..*hyphen].iter().any(|letter| *letter != '-')) {
            end = hyphen + 1;
        }
    }
    *chunk = letters[end..].iter().collect();
    letters[..end].iter().collect()
}
