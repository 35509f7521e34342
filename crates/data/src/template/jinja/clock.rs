//! The time that templates write.

use chrono::NaiveDateTime;

use super::error::{Fault, Result};

/// Longest format of a time.
const MAX_FORMAT_BYTES: usize = 4096;

/// Where the time comes from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Clock {
    /// The local time of the machine, as Python's `datetime.now`.
    #[default]
    Local,
    /// A given time, for tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "templates in use write the date of the day"))]
    Fixed(NaiveDateTime),
}

impl Clock {
    /// Formats the time as C's `strftime` in the C locale.
    pub(crate) fn format(self, format: &str) -> Result<String> {
        if format.len() > MAX_FORMAT_BYTES {
            return Err(Fault::bound("bytes of a time format", MAX_FORMAT_BYTES as u64));
        }
        let now = match self {
            Self::Local => chrono::Local::now().naive_local(),
            Self::Fixed(time) => time,
        };
        let mut result = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                result.push(letter);
                continue;
            }
            match letters.next() {
                None => result.push('%'),
                Some(flag @ ('-' | '_' | '0' | '^' | '#')) => {
                    let letter = letters.next().unwrap_or('%');
                    result.push_str(&flagged(flag, &directive(now, letter, Some(flag))));
                }
                Some(letter) => result.push_str(&directive(now, letter, None)),
            }
        }
        Ok(result)
    }
}

/// Writes one part of a time; what has no meaning stands for itself.
fn directive(now: NaiveDateTime, letter: char, flag: Option<char>) -> String {
    let format = match letter {
        'f' => return now.format("%6f").to_string(),
        // A time without a zone.
        'z' | 'Z' => return String::new(),
        'c' => "%a %b %e %H:%M:%S %Y",
        'x' => "%m/%d/%y",
        'X' => "%H:%M:%S",
        'r' => "%I:%M:%S %p",
        'P' => return now.format("%p").to_string().to_lowercase(),
        'a' | 'A' | 'b' | 'B' | 'h' | 'd' | 'e' | 'D' | 'F' | 'T' | 'R' | 'H' | 'I' | 'k' | 'l' | 'j' | 'm' | 'M'
        | 'p' | 'S' | 'u' | 'U' | 'V' | 'w' | 'W' | 'y' | 'Y' | 'G' | 'g' | 'C' | 'n' | 't' | '%' => {
            return now.format(&format!("%{letter}")).to_string();
        }
        _ => return format!("%{}{letter}", flag.map(String::from).unwrap_or_default()),
    };
    now.format(format).to_string()
}

fn flagged(flag: char, text: &str) -> String {
    match flag {
        '-' => {
            let short = text.trim_start_matches(['0', ' ']);
            if short.is_empty() && !text.is_empty() { "0".into() } else { short.to_owned() }
        }
        '_' => {
            let short = text.trim_start_matches('0');
            format!("{}{short}", " ".repeat(text.len() - short.len()))
        }
        '0' => text.replace(' ', "0"),
        '^' => text.to_uppercase(),
        _ => text
            .chars()
            .map(|letter| if letter.is_uppercase() { letter.to_ascii_lowercase() } else { letter.to_ascii_uppercase() })
            .collect(),
    }
}
