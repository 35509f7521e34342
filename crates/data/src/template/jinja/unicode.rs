//! Character classes and cases, as Python's `str` has them.

use super::{
    cases::{DECIMAL, DIGIT, NUMERIC, TITLE, TO_FOLD, TO_TITLE},
    classes::{ALPHA, HIDDEN},
};

fn within(table: &[(u32, u32)], letter: char) -> bool {
    let code = u32::from(letter);
    let at = table.partition_point(|(_, last)| *last < code);
    table.get(at).is_some_and(|(first, _)| *first <= code)
}

/// Returns whether Python counts a character as white space; Rust leaves out 0x1c to 0x1f.
pub(crate) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// Returns whether a character belongs to a word, as `\w`.
pub(crate) fn is_word(letter: char) -> bool {
    letter == '_' || is_alpha(letter) || is_numeric(letter)
}

/// Returns whether `isalpha` accepts a character.
pub(crate) fn is_alpha(letter: char) -> bool {
    within(ALPHA, letter)
}

/// Returns whether `isdecimal` accepts a character.
pub(crate) fn is_decimal(letter: char) -> bool {
    within(DECIMAL, letter)
}

/// Returns whether `isdigit` accepts a character.
pub(crate) fn is_digit(letter: char) -> bool {
    within(DIGIT, letter)
}

/// Returns whether `isnumeric` accepts a character.
pub(crate) fn is_numeric(letter: char) -> bool {
    within(NUMERIC, letter)
}

/// Returns whether `repr` shows a character as it is.
pub(crate) fn is_printable(letter: char) -> bool {
    !within(HIDDEN, letter)
}

/// Returns whether a character is in title case.
pub(crate) fn is_title(letter: char) -> bool {
    within(TITLE, letter)
}

/// Returns the digit that a decimal character stands for.
pub(crate) fn decimal_value(letter: char) -> Option<u32> {
    let code = u32::from(letter);
    let at = DECIMAL.partition_point(|(_, last)| *last < code);
    // Decimal digits come in runs of ten.
    DECIMAL.get(at).filter(|(first, _)| *first <= code).map(|(first, _)| (code - first) % 10)
}

fn mapped(table: &'static [(char, &'static str)], letter: char) -> Option<&'static str> {
    table.binary_search_by_key(&letter, |(from, _)| *from).ok().map(|at| table[at].1)
}

/// Appends a character in title case.
pub(crate) fn push_title(letter: char, result: &mut String) {
    match mapped(TO_TITLE, letter) {
        Some(text) => result.push_str(text),
        None => result.extend(letter.to_uppercase()),
    }
}

/// Folds the case of a text.
pub(crate) fn fold(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        match mapped(TO_FOLD, letter) {
            Some(folded) => result.push_str(folded),
            None => result.extend(letter.to_lowercase()),
        }
    }
    result
}

/// Returns whether a character has a case.
pub(crate) fn is_cased(letter: char) -> bool {
    letter.is_lowercase() || letter.is_uppercase() || is_title(letter)
}

/// Capitalizes: the first character in title case, the rest in lower case.
pub(crate) fn capitalize(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let lower = text.to_lowercase();
    let Some(first) = text.chars().next() else { return result };
    push_title(first, &mut result);
    let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
    result.push_str(&lower[skipped..]);
    result
}

/// Puts every word in title case, as `str.title`.
pub(crate) fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let lower = Lowered::new(text);
    let mut inside = false;
    for (at, letter) in text.char_indices() {
        if inside {
            lower.push(at, letter, &mut result);
        } else {
            push_title(letter, &mut result);
        }
        inside = is_cased(letter);
    }
    result
}

/// Swaps the case of every character.
pub(crate) fn swap(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let lower = Lowered::new(text);
    for (at, letter) in text.char_indices() {
        if letter.is_uppercase() {
            lower.push(at, letter, &mut result);
        } else if letter.is_lowercase() {
            result.extend(letter.to_uppercase());
        } else {
            result.push(letter);
        }
    }
    result
}

/// Lowers single characters of a text: a sigma at a word's end differs.
struct Lowered<'a> {
    text: &'a str,
}

impl<'a> Lowered<'a> {
    fn new(text: &'a str) -> Self {
        Self { text }
    }

    fn push(&self, at: usize, letter: char, result: &mut String) {
        if letter != 'Σ' {
            return result.extend(letter.to_lowercase());
        }
        let before = self.text[..at].chars().rev().find(|letter| !ignorable(*letter));
        let after = self.text[at + letter.len_utf8()..].chars().find(|letter| !ignorable(*letter));
        let ends = before.is_some_and(is_cased) && !after.is_some_and(is_cased);
        result.push(if ends { 'ς' } else { 'σ' });
    }
}

fn ignorable(letter: char) -> bool {
    matches!(letter, '\'' | '.' | ':' | '^' | '`' | '\u{ad}' | '\u{b7}' | '\u{2019}')
        || ('\u{300}'..='\u{36f}').contains(&letter)
}

/// Drops white space at the end.
pub(crate) fn rstrip(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Drops white space at both ends.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Returns whether a character ends a line for `splitlines`.
pub(crate) fn is_line_end(letter: char) -> bool {
    matches!(letter, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Splits a text into lines, with their ends where `keep`.
pub(crate) fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_line_end) {
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
