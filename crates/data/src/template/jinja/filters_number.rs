//! Filters on numbers.

use num_bigint::{BigInt, BigUint};

use super::{
    call::{Args, index},
    compare::as_big,
    digits,
    error::{Fault, Result},
    number::{Number, Operator, compute, exact, sign},
    state::State,
    unicode::{decimal_value, strip},
    value::Value,
};

impl State<'_> {
    /// Applies a filter on numbers.
    pub(crate) fn number_filter(&mut self, name: &str, value: Value, args: Args) -> Result<Value> {
        match name {
            "abs" => {
                let []: [Option<Value>; 0] = args.positional(name)?;
                match (&value, Number::of(&value)) {
                    (Value::Undefined(what), _) => Err(Fault::new(what.to_string())),
                    (_, Some(Number::Float(number))) => Ok(Value::Float(number.abs())),
                    (_, Some(Number::Int(number))) => sign(&Value::Int(number), number < 0),
                    (_, Some(Number::Big(number))) => Ok(Value::integer(number.magnitude().clone().into())),
                    _ => Err(Fault::new(format!("abs needs a number, got a {}", value.kind()))),
                }
            }
            "float" => {
                let [default] = args.places(name, ["default"])?;
                self.float_of(&value).map(|float| match float {
                    Some(number) => Value::Float(number),
                    None => default.unwrap_or(Value::Float(0.0)),
                })
            }
            "int" => self.integer_of(&value, args),
            "round" => self.round(&value, args),
            _ => self.file_size(&value, args),
        }
    }

    /// Converts to a float; `None` where Python's `float` raises what the filter catches.
    fn float_of(&mut self, value: &Value) -> Result<Option<f64>> {
        match (value, Number::of(value)) {
            (Value::Undefined(what), _) => Err(Fault::new(what.to_string())),
            (_, Some(number)) => number.float().map(Some),
            (Value::Text(text), _) => {
                self.meter.read(text.text.len())?;
                Ok(parse_float(&text.text))
            }
            _ => Ok(None),
        }
    }

    fn integer_of(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [default, base] = args.places("int", ["default", "base"])?;
        let base = base.as_ref().map_or(Ok(10), |base| index(base, "int"))?;
        match value {
            Value::Text(text) => {
                self.meter.step(1 + (text.text.len() as u64).pow(2) / 1024)?;
                if let Some(number) = parse_integer(&text.text, base) {
                    return Ok(Value::integer(number));
                }
                let float = parse_float(&text.text).and_then(|number| exact(number.trunc()));
                Ok(float.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::integer))
            }
            Value::Float(number) if number.is_infinite() => Err(Fault::new("an infinite float is no integer")),
            Value::Float(number) => {
                Ok(exact(number.trunc()).map_or_else(|| default.unwrap_or(Value::Int(0)), Value::integer))
            }
            Value::Undefined(what) => Err(Fault::new(what.to_string())),
            _ => Ok(as_big(value).map_or_else(|| default.unwrap_or(Value::Int(0)), Value::integer)),
        }
    }

    fn round(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [precision, method] = args.places("round", ["precision", "method"])?;
        let precision = match &precision {
            None => 0,
            Some(Value::None) => {
                return Err(Fault::new("round without a precision is not supported"));
            }
            Some(precision) => index(precision, "round")?,
        };
        let method = match &method {
            None => "common",
            Some(Value::Text(text)) => &text.text,
            Some(_) => "",
        };
        if !["common", "ceil", "floor"].contains(&method) {
            return Err(Fault::new("round knows the methods common, ceil and floor"));
        }
        if let Value::Undefined(what) = value {
            return Err(Fault::new(what.to_string()));
        }
        let number =
            Number::of(value).ok_or_else(|| Fault::new(format!("round needs a number, got a {}", value.kind())))?;
        if method == "common" {
            return match number {
                Number::Float(number) => round_float(number, precision).map(Value::Float),
                integer => self.round_integer(integer, precision),
            };
        }
        let factor = compute(Operator::Pow, Number::Int(10), Number::Int(precision), &self.meter)?;
        let scaled = self.arithmetic(Operator::Mul, value, &factor)?;
        let whole = match scaled {
            Value::Float(number) => {
                let number = if method == "ceil" { number.ceil() } else { number.floor() };
                Value::integer(exact(number).ok_or_else(|| Fault::new("a float that is no number cannot be rounded"))?)
            }
            integer => integer,
        };
        self.arithmetic(Operator::Div, &whole, &factor)
    }

    fn round_integer(&mut self, number: Number, precision: i64) -> Result<Value> {
        let number = number.big().unwrap_or_default();
        if precision >= 0 {
            return Ok(Value::integer(number));
        }
        let power = u32::try_from(precision.unsigned_abs()).unwrap_or(u32::MAX);
        if u64::from(power) > number.bits() {
            return Ok(Value::Int(0));
        }
        let unit = BigInt::from(10).pow(power);
        let rest = ((&number % &unit) + &unit) % &unit;
        let down = &number - &rest;
        let twice = rest * 2;
        let odd = (&down / &unit).bit(0);
        let up = twice > unit || twice == unit && odd;
        Ok(Value::integer(if up { down + unit } else { down }))
    }

    fn file_size(&mut self, value: &Value, args: Args) -> Result<Value> {
        let [binary] = args.places("filesizeformat", ["binary"])?;
        let binary = binary.is_some_and(|binary| binary.truth());
        let bytes = self.float_of(value)?.ok_or_else(|| Fault::new("filesizeformat needs a number"))?;
        let base: f64 = if binary { 1024.0 } else { 1000.0 };
        if bytes == 1.0 {
            return Ok(Value::text("1 Byte"));
        }
        if bytes < base {
            let whole = exact(bytes.trunc()).ok_or_else(|| Fault::new("filesizeformat needs a number"))?;
            return Ok(Value::text(format!("{whole} Bytes")));
        }
        let units = if binary {
            ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
        } else {
            ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
        };
        let mut text = String::new();
        for (power, unit) in (2..).zip(units) {
            let size = base.powi(power);
            text = format!("{} {unit}", digits::float(base * bytes / size, 'f', 1, false)?);
            if bytes < size {
                break;
            }
        }
        Ok(Value::text(text))
    }
}

fn round_float(number: f64, precision: i64) -> Result<f64> {
    if !number.is_finite() {
        return Ok(number);
    }
    // Beyond 17 digits nothing is left to round; the largest float has 309 digits.
    if precision > 340 {
        return Ok(number);
    }
    if precision < -310 {
        return Ok(0f64.copysign(number));
    }
    if precision >= 0 {
        let places = usize::try_from(precision).unwrap_or(0);
        return Ok(format!("{number:.places$}").parse().unwrap_or(number));
    }
    let power = u32::try_from(-precision).unwrap_or(0);
    let unit = BigInt::from(10).pow(power);
    let whole = exact(number.abs().trunc()).unwrap_or_default();
    let (down, rest) = (&whole / &unit, &whole % &unit);
    let twice = rest * 2;
    let beyond = number.fract() != 0.0;
    let up = twice > unit || twice == unit && (beyond || down.bit(0));
    let rounded = (if up { down + 1 } else { down }) * unit;
    let float = Number::Big(rounded).float()?;
    Ok(float.copysign(number))
}

/// Replaces decimal digits of all scripts by those of ASCII, and drops single underscores between digits.
fn ascii_digits(text: &str) -> Option<String> {
    let text: String = strip(text)
        .chars()
        .map(|letter| decimal_value(letter).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(letter))
        .collect();
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    Some(text)
}

fn parse_float(text: &str) -> Option<f64> {
    let text = ascii_digits(text)?;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        if *byte == b'_' && !(digit(at.checked_sub(1)) && digit(Some(at + 1))) {
            return None;
        }
    }
    let text = text.replace('_', "").to_ascii_lowercase();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let words = ["inf", "infinity", "nan"];
    if !words.contains(&unsigned) && !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    text.parse().ok()
}

/// Reads an integer as Python's `int(text, base)`.
fn parse_integer(text: &str, base: i64) -> Option<BigInt> {
    let text = ascii_digits(text)?.to_ascii_lowercase();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let prefix = match digits.get(..2) {
        Some("0b") => Some(2),
        Some("0o") => Some(8),
        Some("0x") => Some(16),
        _ => None,
    };
    let (base, digits) = match (base, prefix) {
        (0, Some(found)) => (found, &digits[2..]),
        (0, None) if digits.trim_matches(['0', '_']).is_empty() => (10, digits),
        (0, None) if digits.starts_with('0') => return None,
        (0, None) => (10, digits),
        (base, Some(found)) if base == found => (base, &digits[2..]),
        (base, _) => (base, digits),
    };
    let digits = if prefix == Some(base) { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    let radix = u32::try_from(base).ok().filter(|radix| (2..=36).contains(radix))?;
    if digits.starts_with('_') || !digits.chars().all(|letter| letter == '_' || letter.is_digit(radix)) {
        return None;
    }
    let digits = digits.replace('_', "");
    // Python reads no more decimal digits than it prints.
    if digits.len() > 4300 && !radix.is_power_of_two() {
        return None;
    }
    let size = BigInt::from(BigUint::parse_bytes(digits.as_bytes(), radix)?);
    Some(if negative { -size } else { size })
}
