//! The format specifications of `str.format`.

use num_bigint::BigInt;

use super::{
    call::index,
    compare::as_big,
    digits,
    error::{Fault, Result},
    limits::MAX_TEXT_BYTES,
    number::Number,
    repr,
    state::State,
    value::Value,
};

/// A format specification: `[[fill]align][sign][z][#][0][width][group][.precision][type]`.
#[derive(Debug)]
struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    alternate: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

fn wrong() -> Box<Fault> {
    Fault::new("a format specification is not valid for its value")
}

fn number(letters: &mut std::iter::Peekable<std::str::Chars>) -> Option<usize> {
    let mut number: Option<usize> = None;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
        letters.next();
    }
    number
}

fn parse(text: &str) -> Result<Spec> {
    let all: Vec<char> = text.chars().take(2).collect();
    let is_align = |letter: Option<&char>| letter.is_some_and(|letter| "<>=^".contains(*letter));
    let mut letters = text.chars().peekable();
    let mut spec = Spec {
        fill: ' ',
        align: None,
        sign: '-',
        alternate: false,
        width: 0,
        group: None,
        precision: None,
        kind: None,
    };
    if is_align(all.get(1)) {
        spec.fill = letters.next().unwrap_or(' ');
        spec.align = letters.next();
    } else if is_align(all.first()) {
        spec.align = letters.next();
    }
    if let Some(sign) = letters.next_if(|letter| "+- ".contains(*letter)) {
        spec.sign = sign;
    }
    letters.next_if_eq(&'z');
    spec.alternate = letters.next_if_eq(&'#').is_some();
    if letters.next_if_eq(&'0').is_some() && spec.align.is_none() {
        (spec.fill, spec.align) = ('0', Some('='));
    }
    spec.width = number(&mut letters).unwrap_or(0);
    spec.group = letters.next_if(|letter| ",_".contains(*letter));
    if letters.next_if_eq(&'.').is_some() {
        spec.precision = Some(number(&mut letters).ok_or_else(wrong)?);
    }
    spec.kind = letters.next();
    if letters.next().is_some() || spec.width > i32::MAX as usize {
        return Err(wrong());
    }
    Ok(spec)
}

impl Spec {
    fn fill(&self, sign: &str, body: &str, default: char, meter: &super::limits::Meter) -> Result<String> {
        let length = sign.chars().count() + body.chars().count();
        let missing = self.width.saturating_sub(length);
        meter.text(missing.saturating_mul(self.fill.len_utf8()).saturating_add(sign.len() + body.len()))?;
        let fill = |count: usize| self.fill.to_string().repeat(count);
        Ok(match self.align.unwrap_or(default) {
            '<' => format!("{sign}{body}{}", fill(missing)),
            '^' => format!("{}{sign}{body}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{sign}{}{body}", fill(missing)),
            _ => format!("{}{sign}{body}", fill(missing)),
        })
    }

    fn sign(&self, negative: bool) -> String {
        match (negative, self.sign) {
            (true, _) => "-".into(),
            (false, '-') => String::new(),
            (false, sign) => sign.to_string(),
        }
    }

    /// Puts groups into digits; zeros that fill up to the width are grouped too.
    fn group(&self, body: String, size: usize, taken: usize) -> String {
        let Some(separator) = self.group else { return body };
        let mut text = digits::grouped(&body, separator, size);
        if self.fill == '0' && self.align == Some('=') {
            let mut padded = body;
            while text.chars().count() + taken < self.width {
                padded.insert(0, '0');
                text = digits::grouped(&padded, separator, size);
            }
        }
        text
    }
}

impl State<'_> {
    /// Formats a value by a specification.
    pub(crate) fn format_value(&mut self, value: &Value, spec: &str) -> Result<String> {
        if spec.is_empty() {
            return Ok(self.str(value)?.to_string());
        }
        let spec = parse(spec)?;
        if spec.width > MAX_TEXT_BYTES {
            return Err(Fault::bound("bytes of one text", MAX_TEXT_BYTES as u64));
        }
        match value {
            Value::Text(text) => self.format_text(&text.text, &spec),
            Value::Float(number) => self.format_float(*number, &spec),
            Value::Bool(_) | Value::Int(_) | Value::Big(_) => self.format_integer(value, &spec),
            _ => Err(Fault::new(format!("a {} takes no format specification", value.kind()))),
        }
    }

    fn format_text(&mut self, text: &str, spec: &Spec) -> Result<String> {
        let allowed = spec.kind.is_none_or(|kind| kind == 's') && spec.sign == '-' && !spec.alternate;
        if !allowed || spec.group.is_some() || spec.align == Some('=') && spec.fill != '0' {
            return Err(wrong());
        }
        let cut: String = match spec.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        if spec.align == Some('=') {
            let left = Spec { align: Some('<'), fill: spec.fill, sign: '-', group: None, kind: None, ..*spec };
            return left.fill("", &cut, '<', &self.meter);
        }
        spec.fill("", &cut, '<', &self.meter)
    }

    fn format_integer(&mut self, value: &Value, spec: &Spec) -> Result<String> {
        let kind = spec.kind.unwrap_or('d');
        if "eEfFgG%".contains(kind) {
            let number = Number::of(value).ok_or_else(wrong)?.float()?;
            return self.format_float(number, spec);
        }
        if spec.precision.is_some() {
            return Err(wrong());
        }
        if kind == 'c' {
            if spec.sign != '-' || spec.group.is_some() {
                return Err(wrong());
            }
            let letter = super::translate::character(value)?.to_string();
            return spec.fill("", &letter, '<', &self.meter);
        }
        let number = as_big(value).ok_or_else(wrong)?;
        let negative = number.sign() == num_bigint::Sign::Minus;
        let (prefix, body) = self.integer_digits(&number, kind)?;
        if spec.group == Some(',') && kind != 'd' {
            return Err(wrong());
        }
        let sign = spec.sign(negative) + if spec.alternate { prefix } else { "" };
        let body = spec.group(body, if kind == 'd' { 3 } else { 4 }, sign.len());
        spec.fill(&sign, &body, '>', &self.meter)
    }

    /// Writes an integer's digits without its sign, and the prefix of its base.
    pub(crate) fn integer_digits(&mut self, number: &BigInt, kind: char) -> Result<(&'static str, String)> {
        let size = number.magnitude();
        Ok(match kind {
            'd' | 'n' => ("", repr::integer(&size.clone().into(), &self.meter)?),
            'b' => ("0b", size.to_str_radix(2)),
            'o' => ("0o", size.to_str_radix(8)),
            'x' => ("0x", size.to_str_radix(16)),
            'X' => ("0X", size.to_str_radix(16).to_ascii_uppercase()),
            _ => return Err(wrong()),
        })
    }

    fn format_float(&mut self, number: f64, spec: &Spec) -> Result<String> {
        let negative = number.is_sign_negative() && !number.is_nan();
        let body = match (spec.kind, spec.precision) {
            (None, None) => repr::float(number.abs()),
            (None, Some(precision)) => {
                let text = digits::float(number, 'g', precision, spec.alternate)?;
                let bare = !text.contains(['.', 'e', 'n', 'i']);
                let whole = text.trim_start_matches('0').len();
                match bare {
                    true if whole < precision.max(1) => text + ".0",
                    // As many digits as the precision: there is no place behind the point.
                    true => digits::float(number, 'e', precision.max(1) - 1, spec.alternate)?,
                    false => text,
                }
            }
            (Some('%'), precision) => digits::float(number * 100.0, 'f', precision.unwrap_or(6), spec.alternate)? + "%",
            (Some(kind), precision) if "eEfFgG".contains(kind) => {
                digits::float(number, kind, precision.unwrap_or(6), spec.alternate)?
            }
            (Some('n'), precision) => digits::float(number, 'g', precision.unwrap_or(6), spec.alternate)?,
            _ => return Err(wrong()),
        };
        let sign = spec.sign(negative);
        let body = spec.group(body, 3, sign.len());
        spec.fill(&sign, &body, '>', &self.meter)
    }
}

/// Returns a width or precision that stands in an argument.
pub(crate) fn star(value: &Value) -> Result<i64> {
    index(value, "a format")
}
