//! Formatting with `%`.

use num_bigint::Sign;

use super::{
    compare::{Key, as_big},
    digits,
    error::{Fault, Result},
    escape::escape,
    format::ascii,
    limits::MAX_TEXT_BYTES,
    number::{Number, exact},
    spec::star,
    state::State,
    value::{Text, Value},
};

/// What stands between `%` and its letter.
#[derive(Debug, Default)]
struct Flags {
    alternate: bool,
    zero: bool,
    left: bool,
    sign: Option<char>,
    width: usize,
    precision: Option<usize>,
}

/// Arguments of a `%`, taken one after another, or by name.
struct Values<'v> {
    list: Vec<&'v Value>,
    next: usize,
    mapping: bool,
    whole: &'v Value,
}

impl<'v> Values<'v> {
    fn new(whole: &'v Value) -> Self {
        let list = match whole {
            Value::Tuple(items) => items.list.iter().collect(),
            _ => vec![whole],
        };
        let mapping = matches!(whole, Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_));
        Self { list, next: 0, mapping, whole }
    }

    fn take(&mut self) -> Result<Value> {
        let value = self.list.get(self.next).ok_or_else(|| Fault::new("a '%' format lacks arguments"))?;
        self.next += 1;
        Ok((*value).clone())
    }
}

impl State<'_> {
    /// Formats a text with `%`.
    pub(crate) fn percent(&mut self, text: &Text, whole: &Value) -> Result<Value> {
        let mut values = Values::new(whole);
        let mut result = String::new();
        let mut rest = &*text.text;
        while let Some(at) = rest.find('%') {
            result.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            rest = self.directive(rest, &mut values, (text.markup, &mut result))?;
            self.meter.text(result.len())?;
        }
        result.push_str(rest);
        if values.next < values.list.len() && !values.mapping {
            return Err(Fault::new("a '%' format does not use all of its arguments"));
        }
        self.meter.text(result.len())?;
        Ok(Value::marked(result, text.markup))
    }

    /// Writes one value; returns what follows.
    fn directive<'t>(&mut self, text: &'t str, values: &mut Values, into: (bool, &mut String)) -> Result<&'t str> {
        let (markup, result) = into;
        let (name, mut rest) = key(text)?;
        let mut flags = Flags::default();
        while let Some(flag) = rest.chars().next().filter(|letter| "#0- +".contains(*letter)) {
            match flag {
                '#' => flags.alternate = true,
                '0' => flags.zero = true,
                '-' => flags.left = true,
                '+' => flags.sign = Some('+'),
                _ => flags.sign = flags.sign.or(Some(' ')),
            }
            rest = &rest[1..];
        }
        rest = size(rest, values, &mut flags)?;
        rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let kind = rest.chars().next().ok_or_else(|| Fault::new("a '%' format ends early"))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            result.push('%');
            return Ok(rest);
        }
        let value = match name {
            Some(name) => {
                values.next = values.list.len();
                let Value::Dict(dict) = values.whole else {
                    return Err(Fault::new("a '%' format with names needs a dict"));
                };
                let found = dict.map.get(&Key::text(name)).cloned();
                found.ok_or_else(|| Fault::new("a '%' format names a key that is not there"))?
            }
            None => values.take()?,
        };
        let text = self.formatted(&value, kind, &flags)?;
        let escapes = markup && "sra".contains(kind) && !matches!(&value, Value::Text(text) if text.markup);
        if escapes {
            result.push_str(&escape(&text))
        } else {
            result.push_str(&text)
        }
        Ok(rest)
    }

    fn formatted(&mut self, value: &Value, kind: char, flags: &Flags) -> Result<String> {
        let (sign, body) = match kind {
            's' | 'r' | 'a' => (String::new(), self.cut(value, kind, flags)?),
            'c' => (String::new(), letter(value)?),
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' => self.integer_parts(value, kind, flags)?,
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => float_parts(value, kind, flags)?,
            _ => return Err(Fault::new("a '%' format has an unknown letter")),
        };
        let missing = flags.width.saturating_sub(sign.chars().count() + body.chars().count());
        self.meter.text(missing.saturating_add(sign.len() + body.len()))?;
        let numeric = !"srac".contains(kind);
        Ok(if flags.left {
            format!("{sign}{body}{}", " ".repeat(missing))
        } else if flags.zero && numeric {
            format!("{sign}{}{body}", "0".repeat(missing))
        } else {
            format!("{}{sign}{body}", " ".repeat(missing))
        })
    }

    fn cut(&mut self, value: &Value, kind: char, flags: &Flags) -> Result<String> {
        let text = match kind {
            's' => self.str(value)?.to_string(),
            'r' => self.repr(value)?,
            _ => ascii(&self.repr(value)?),
        };
        Ok(match flags.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        })
    }

    fn integer_parts(&mut self, value: &Value, kind: char, flags: &Flags) -> Result<(String, String)> {
        let decimal = "diu".contains(kind);
        let number = match value {
            Value::Float(number) if decimal => exact(number.trunc()),
            Value::Undefined(what) => return Err(Fault::new(what.to_string())),
            other => as_big(other),
        };
        let number = number.ok_or_else(|| Fault::new(format!("%{kind} needs an integer, got a {}", value.kind())))?;
        let (prefix, mut body) = self.integer_digits(&number, if decimal { 'd' } else { kind })?;
        if let Some(precision) = flags.precision {
            let missing = digits::check_precision(precision)?.saturating_sub(body.len());
            body = "0".repeat(missing) + &body;
        }
        let sign = sign(number.sign() == Sign::Minus, flags);
        Ok((sign + if flags.alternate { prefix } else { "" }, body))
    }
}

fn sign(negative: bool, flags: &Flags) -> String {
    if negative { "-".into() } else { flags.sign.map(String::from).unwrap_or_default() }
}

fn float_parts(value: &Value, kind: char, flags: &Flags) -> Result<(String, String)> {
    if let Value::Undefined(what) = value {
        return Err(Fault::new(what.to_string()));
    }
    let number =
        Number::of(value).ok_or_else(|| Fault::new(format!("%{kind} needs a number, got a {}", value.kind())))?;
    let number = number.float()?;
    let body = digits::float(number, kind, flags.precision.unwrap_or(6), flags.alternate)?;
    Ok((sign(number.is_sign_negative() && !number.is_nan(), flags), body))
}

fn letter(value: &Value) -> Result<String> {
    match value {
        Value::Text(text) if text.text.chars().count() == 1 => Ok(text.text.to_string()),
        Value::Text(_) => Err(Fault::new("%c needs one character")),
        _ => super::translate::character(value).map(String::from),
    }
}

/// Reads a key in parentheses.
fn key(text: &str) -> Result<(Option<&str>, &str)> {
    let Some(inner) = text.strip_prefix('(') else { return Ok((None, text)) };
    let mut depth = 1;
    for (at, letter) in inner.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok((Some(&inner[..at]), &inner[at + 1..]));
        }
    }
    Err(Fault::new("a '%' format has a key that is not closed"))
}

/// Reads width and precision.
fn size<'t>(text: &'t str, values: &mut Values, flags: &mut Flags) -> Result<&'t str> {
    let (width, mut rest) = amount(text, values)?;
    if let Some(width) = width {
        flags.left |= width < 0;
        flags.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = amount(after, values)?;
        flags.precision = Some(usize::try_from(precision.unwrap_or(0)).unwrap_or(0));
        rest = after;
    }
    if flags.width > MAX_TEXT_BYTES {
        return Err(Fault::bound("bytes of one text", MAX_TEXT_BYTES as u64));
    }
    Ok(rest)
}

fn amount<'t>(text: &'t str, values: &mut Values) -> Result<(Option<i64>, &'t str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Ok((Some(star(&values.take()?)?), rest));
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 {
        return Ok((None, text));
    }
    Ok((Some(text[..end].parse().unwrap_or(i64::MAX)), &text[end..]))
}
