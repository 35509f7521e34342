//! Literals of a template: numbers and texts with escapes.

use num_bigint::BigUint;

use super::{
    error::{Fault, Result},
    repr,
    token::Kind,
};

/// Reads a number at the start of a text, with its length.
pub(crate) fn number(text: &str, after_dot: bool) -> Option<(Kind, usize)> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if !after_dot && let Some(length) = float_length(text) {
        let value = text[..length].replace('_', "").parse().ok()?;
        return Some((Kind::Float(value), length));
    }
    let (radix, prefix) = match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0b") => (2, 2),
        Some("0o") => (8, 2),
        Some("0x") => (16, 2),
        _ => (10, 0),
    };
    let length = prefix + digits(&text[prefix..], radix, prefix > 0);
    if length == prefix {
        return Some((Kind::Integer("0".into()), 1));
    }
    let length = if prefix == 0 && text.starts_with('0') { zeros(text) } else { length };
    let value = BigUint::parse_bytes(text[prefix..length].replace('_', "").as_bytes(), radix)?;
    Some((Kind::Integer(value.to_string()), length))
}

/// Returns the length of digits, which single underscores may join.
fn digits(text: &str, radix: u32, leading: bool) -> usize {
    let (mut length, mut joined) = (0, leading);
    for (at, letter) in text.char_indices() {
        if letter.is_digit(radix) {
            (length, joined) = (at + 1, true);
        } else if letter == '_' && joined {
            joined = false;
        } else {
            break;
        }
    }
    length
}

fn zeros(text: &str) -> usize {
    let all = digits(text, 10, false);
    text[..all].find(|letter| letter != '0' && letter != '_').unwrap_or(all).max(1)
}

fn float_length(text: &str) -> Option<usize> {
    let whole = digits(text, 10, false);
    let fraction = text[whole..].strip_prefix('.').map(|rest| digits(rest, 10, false)).filter(|length| *length > 0);
    let mantissa = whole + fraction.map_or(0, |length| length + 1);
    let exponent = text[mantissa..].strip_prefix(['e', 'E']).and_then(|rest| {
        let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        let length = digits(unsigned, 10, false);
        (length > 0).then(|| 1 + rest.len() - unsigned.len() + length)
    });
    (fraction.is_some() || exponent.is_some()).then(|| mantissa + exponent.unwrap_or(0))
}

/// Returns the length of a text literal with its quotes; `None` if it is not closed.
pub(crate) fn text_length(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Replaces Python's escapes.
pub(crate) fn unescape(text: &str) -> Result<String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let letter = rest.chars().next().ok_or_else(|| Fault::new("a text literal ends in a backslash"))?;
        let used = escape(letter, rest, &mut result)?;
        rest = &rest[used..];
    }
    result.push_str(rest);
    Ok(result)
}

/// Writes what an escape stands for, and returns how much of the text it takes.
fn escape(letter: char, rest: &str, result: &mut String) -> Result<usize> {
    let plain = match letter {
        '\n' => return Ok(1),
        '\\' | '\'' | '"' => letter,
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        'x' => return code(rest, 2, result),
        'u' => return code(rest, 4, result),
        'U' => return code(rest, 8, result),
        'N' => return Err(Fault::new("characters by name (\\N) are not supported; write \\u and its number")),
        '0'..='7' => {
            let length = rest.chars().take(3).take_while(|digit| digit.is_digit(8)).count();
            let number = u32::from_str_radix(&rest[..length], 8).unwrap_or_default();
            result.push(char::from_u32(number).unwrap_or_default());
            return Ok(length);
        }
        _ => {
            // An unknown escape stands for itself; what is not ASCII is escaped before, as Jinja2 does.
            if letter.is_ascii() {
                result.push('\\');
                letter
            } else {
                repr::escape(letter, result);
                return Ok(letter.len_utf8());
            }
        }
    };
    result.push(plain);
    Ok(letter.len_utf8())
}

fn code(rest: &str, digits: usize, result: &mut String) -> Result<usize> {
    let number = rest.get(1..=digits).filter(|text| text.chars().all(|digit| digit.is_ascii_hexdigit()));
    let number = number.and_then(|text| u32::from_str_radix(text, 16).ok());
    let number = number.ok_or_else(|| Fault::new("an escape of a text literal is cut short"))?;
    let letter = char::from_u32(number);
    let letter = letter.ok_or_else(|| Fault::new("an escape of a text literal is half a surrogate pair"))?;
    result.push(letter);
    Ok(1 + digits)
}
