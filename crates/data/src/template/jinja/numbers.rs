//! Methods of integers and floats.

use num_bigint::BigInt;

use super::{
    call::{Args, required},
    compare::as_big,
    error::{Fault, Result},
    number::exact,
    repr,
    state::State,
    strings::text_argument,
    value::Value,
};

/// Returns an integer for a truth value, and others as they are.
pub(crate) fn plain(value: &Value) -> Value {
    match value {
        Value::Bool(value) => Value::Int(i64::from(*value)),
        other => other.clone(),
    }
}

/// Calls a method of a number.
pub(crate) fn method(state: &mut State, object: &Value, name: &str, args: Args) -> Result<Value> {
    if name == "fromhex" {
        let [text] = args.positional(name)?;
        let text = text_argument(&required(text, name)?, name)?;
        return from_hex(&text).map(Value::Float);
    }
    if name == "to_bytes" || name == "from_bytes" {
        return Err(Fault::new(format!("{name} is not supported: there are no bytes")));
    }
    let []: [Option<Value>; 0] = args.positional(name)?;
    if let Value::Float(number) = object {
        return float_method(state, *number, name);
    }
    let number = as_big(object).ok_or_else(|| Fault::new(format!("a {} has no methods", object.kind())))?;
    let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(match name {
        "bit_length" => count(number.bits()),
        "bit_count" => count(number.magnitude().count_ones()),
        "as_integer_ratio" => Value::tuple(vec![plain(object), Value::Int(1)], &state.meter)?,
        _ => plain(object),
    })
}

fn float_method(state: &mut State, number: f64, name: &str) -> Result<Value> {
    Ok(match name {
        "is_integer" => Value::Bool(number.is_finite() && number.fract() == 0.0),
        "hex" => Value::text(to_hex(number)),
        "as_integer_ratio" => {
            if !number.is_finite() {
                return Err(Fault::new("a float that is no number has no ratio"));
            }
            let (mut scaled, mut divisor) = (number, BigInt::from(1));
            while scaled.fract() != 0.0 {
                scaled *= 2.0;
                divisor *= 2;
            }
            let number = exact(scaled).unwrap_or_default();
            Value::tuple(vec![Value::integer(number), Value::integer(divisor)], &state.meter)?
        }
        _ => Value::Float(number),
    })
}

fn to_hex(number: f64) -> String {
    if !number.is_finite() {
        return repr::float(number);
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    let bits = number.abs().to_bits();
    let (exponent, mantissa) = (i64::try_from(bits >> 52).unwrap_or(0), bits & ((1 << 52) - 1));
    if bits == 0 {
        return format!("{sign}0x0.0p+0");
    }
    let (lead, power) = if exponent == 0 { (0, -1022) } else { (1, exponent - 1023) };
    format!("{sign}0x{lead}.{mantissa:013x}p{power:+}")
}

fn from_hex(text: &str) -> Result<f64> {
    let wrong = || Fault::new("fromhex got no float in base 16");
    let text = super::unicode::strip(text).to_ascii_lowercase();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let size = match text {
        "inf" | "infinity" => f64::INFINITY,
        "nan" => f64::NAN,
        _ => {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            let (digits, power) = digits.split_once('p').unwrap_or((digits, "0"));
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            let power: i32 = power.parse().map_err(|_| wrong())?;
            let shift = i32::try_from(fraction.len()).map_err(|_| wrong())?.saturating_mul(4);
            let number = u64::from_str_radix(&format!("{whole}{fraction}"), 16).map_err(|_| wrong())?;
            #[allow(clippy::cast_precision_loss)]
            let float = number as f64;
            let half = power.saturating_sub(shift) / 2;
            float * 2f64.powi(half) * 2f64.powi(power.saturating_sub(shift) - half)
        }
    };
    Ok(if negative { -size } else { size })
}
