//! Digits of numbers for `%` and `format`.

use super::error::{Fault, Result};

/// Most digits behind the point; Rust formats no more than 65 535.
pub(crate) const MAX_PRECISION: usize = 10_000;

/// Checks a precision.
pub(crate) fn check_precision(precision: usize) -> Result<usize> {
    if precision > MAX_PRECISION {
        return Err(Fault::bound("digits behind the point", MAX_PRECISION as u64));
    }
    Ok(precision)
}

/// Writes a float without its sign, by a format of C.
pub(crate) fn float(number: f64, kind: char, precision: usize, alternate: bool) -> Result<String> {
    check_precision(precision)?;
    let number = number.abs();
    let upper = kind.is_ascii_uppercase();
    if !number.is_finite() {
        let text = if number.is_nan() { "nan" } else { "inf" };
        return Ok(if upper { text.to_ascii_uppercase() } else { text.to_owned() });
    }
    let text = match kind.to_ascii_lowercase() {
        'f' => fixed(number, precision, alternate),
        'e' => exponent(number, precision, alternate),
        _ => general(number, precision.max(1), alternate),
    };
    Ok(if upper { text.to_ascii_uppercase() } else { text })
}

fn fixed(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$}");
    if alternate && precision == 0 { text + "." } else { text }
}

fn exponent(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let point = if alternate && precision == 0 { "." } else { "" };
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}{point}e{sign}{:02}", power.abs())
}

fn general(number: f64, precision: usize, alternate: bool) -> String {
    let text = exponent(number, precision - 1, alternate);
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "+00"));
    let power: i64 = power.parse().unwrap_or(0);
    let places = i64::try_from(precision).unwrap_or(i64::MAX);
    if (-4..places).contains(&power) {
        let decimals = usize::try_from(places - 1 - power).unwrap_or(0);
        let text = fixed(number, decimals, alternate);
        return if alternate { text } else { without_zeros(&text).to_owned() };
    }
    let mantissa = if alternate { mantissa } else { without_zeros(mantissa) };
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
}

fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Writes digits in groups.
pub(crate) fn grouped(text: &str, separator: char, size: usize) -> String {
    let whole = text.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (whole, rest) = match text.find(['.', 'e', 'E']) {
        Some(at) if size == 3 => text.split_at(at),
        _ => text.split_at(whole),
    };
    let mut result = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % size == 0 {
            result.push(separator);
        }
        result.push(digit);
    }
    result + rest
}
