//! Arithmetic and printing of numbers, as Python's.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};

use super::{
    compare::as_big,
    error::{Fault, Result},
    limits::{MAX_INTEGER_BITS, Meter},
    value::Value,
};

/// A number for arithmetic.
#[derive(Debug, Clone)]
pub(crate) enum Number {
    /// A small integer or truth value.
    Int(i64),
    /// A large integer.
    Big(BigInt),
    /// A float.
    Float(f64),
}

impl Number {
    /// Returns the number of a value, if it is one.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Int(i64::from(*value))),
            Value::Int(number) => Some(Self::Int(*number)),
            Value::Big(number) => Some(Self::Big((**number).clone())),
            Value::Float(number) => Some(Self::Float(*number)),
            _ => None,
        }
    }

    /// Returns the number as a float; integers beyond its range are a fault.
    pub(crate) fn float(&self) -> Result<f64> {
        match self {
            #[allow(clippy::cast_precision_loss)]
            Self::Int(number) => Ok(*number as f64),
            Self::Big(number) => big_float(number).ok_or_else(|| Fault::new("an integer is too large for a float")),
            Self::Float(number) => Ok(*number),
        }
    }

    /// Returns the number as an integer of any size, unless it is a float.
    pub(crate) fn big(self) -> Option<BigInt> {
        match self {
            Self::Int(number) => Some(number.into()),
            Self::Big(number) => Some(number),
            Self::Float(_) => None,
        }
    }
}

/// Converts an integer to the nearest float; `None` beyond its range.
fn big_float(number: &BigInt) -> Option<f64> {
    // Rust's parser rounds to nearest; the conversion of num-bigint truncates in older versions.
    number.to_string().parse::<f64>().ok().filter(|float| float.is_finite())
}

/// Returns the integer that a float is, if it is one.
pub(crate) fn exact(number: f64) -> Option<BigInt> {
    if !number.is_finite() || number.fract() != 0.0 {
        return None;
    }
    let bits = number.abs().to_bits();
    let exponent = i32::try_from(bits >> 52).unwrap_or_default() - 1075;
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    if number == 0.0 {
        return Some(BigInt::from(0));
    }
    let size = if exponent >= 0 {
        BigInt::from(mantissa) << exponent.unsigned_abs()
    } else {
        BigInt::from(mantissa) >> exponent.unsigned_abs()
    };
    Some(if number < 0.0 { -size } else { size })
}

/// Orders two numbers; `None` with a NaN.
pub(crate) fn compare(left: &Number, right: &Number) -> Option<Ordering> {
    match (left, right) {
        (Number::Int(left), Number::Int(right)) => Some(left.cmp(right)),
        (Number::Float(left), Number::Float(right)) => left.partial_cmp(right),
        (Number::Float(left), right) => compare_float(*left, right).map(Ordering::reverse),
        (left, Number::Float(right)) => compare_float(*right, left),
        (left, right) => Some(left.clone().big()?.cmp(&right.clone().big()?)),
    }
}

/// Orders an integer against a float exactly.
fn compare_float(float: f64, integer: &Number) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.is_infinite() {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = exact(float.floor())?;
    let order = integer.clone().big()?.cmp(&floor);
    Some(if order == Ordering::Equal && float.fract() != 0.0 { Ordering::Less } else { order })
}

/// An operator of arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `//`
    FloorDiv,
    /// `%`
    Mod,
    /// `**`
    Pow,
}

/// Computes with two numbers.
pub(crate) fn compute(operator: Operator, left: Number, right: Number, meter: &Meter) -> Result<Value> {
    if let (Number::Int(left), Number::Int(right)) = (&left, &right)
        && let Some(value) = small(operator, *left, *right)
    {
        return Ok(Value::Int(value));
    }
    if operator == Operator::Div || matches!(left, Number::Float(_)) || matches!(right, Number::Float(_)) {
        return floats(operator, &left, &right);
    }
    match (left.big(), right.big()) {
        (Some(left), Some(right)) => integers(operator, &left, &right, meter),
        _ => Err(Fault::new("a number is neither integer nor float")),
    }
}

fn small(operator: Operator, left: i64, right: i64) -> Option<i64> {
    match operator {
        Operator::Add => left.checked_add(right),
        Operator::Sub => left.checked_sub(right),
        Operator::Mul => left.checked_mul(right),
        Operator::FloorDiv if right != 0 => floor_div(left, right),
        Operator::Mod if right != 0 => {
            floor_div(left, right).map(|quotient| left.wrapping_sub(quotient.wrapping_mul(right)))
        }
        _ => None,
    }
}

fn floor_div(left: i64, right: i64) -> Option<i64> {
    let quotient = left.checked_div(right)?;
    Some(if left % right != 0 && (left < 0) != (right < 0) { quotient - 1 } else { quotient })
}

fn integers(operator: Operator, left: &BigInt, right: &BigInt, meter: &Meter) -> Result<Value> {
    check_bits(left.bits().saturating_add(right.bits()).saturating_mul(if operator == Operator::Mul { 1 } else { 0 }))?;
    meter.step(1 + left.bits() / 64 * (right.bits() / 64 + 1) / 16)?;
    let zero = BigInt::from(0);
    Ok(Value::integer(match operator {
        Operator::Add => left + right,
        Operator::Sub => left - right,
        Operator::Mul => left * right,
        Operator::Pow => return power(left, right),
        Operator::Div | Operator::FloorDiv | Operator::Mod if *right == zero => return Err(by_zero()),
        Operator::Div | Operator::FloorDiv => floor_quotient(left, right),
        Operator::Mod => left - floor_quotient(left, right) * right,
    }))
}

fn floor_quotient(left: &BigInt, right: &BigInt) -> BigInt {
    let (quotient, rest) = (left / right, left % right);
    if rest != BigInt::from(0) && (rest.sign() == Sign::Minus) != (right.sign() == Sign::Minus) {
        quotient - 1
    } else {
        quotient
    }
}

fn check_bits(bits: u64) -> Result<()> {
    if bits > MAX_INTEGER_BITS { Err(Fault::bound("bits of an integer", MAX_INTEGER_BITS)) } else { Ok(()) }
}

fn power(base: &BigInt, exponent: &BigInt) -> Result<Value> {
    if exponent.sign() == Sign::Minus {
        return floats(Operator::Pow, &Number::Big(base.clone()), &Number::Big(exponent.clone()));
    }
    if base.bits() <= 1 {
        let odd = exponent.bit(0);
        let one = *exponent == BigInt::from(0) || base.sign() == Sign::Plus || base.sign() == Sign::Minus && !odd;
        return Ok(if one { Value::Int(1) } else { Value::integer(base.clone()) });
    }
    let exponent = u32::try_from(exponent).unwrap_or(u32::MAX);
    check_bits(base.bits().saturating_mul(exponent.into()))?;
    Ok(Value::integer(base.pow(exponent)))
}

fn by_zero() -> Box<Fault> {
    Fault::new("it divides by zero")
}

fn floats(operator: Operator, left: &Number, right: &Number) -> Result<Value> {
    if operator == Operator::Div
        && let (Some(left), Some(right)) = (left.clone().big(), right.clone().big())
    {
        return true_quotient(&left, &right);
    }
    let (left, right) = (left.float()?, right.float()?);
    Ok(Value::Float(match operator {
        Operator::Add => left + right,
        Operator::Sub => left - right,
        Operator::Mul => left * right,
        Operator::Div | Operator::FloorDiv | Operator::Mod if right == 0.0 => return Err(by_zero()),
        Operator::Div => left / right,
        Operator::FloorDiv => float_divmod(left, right).0,
        Operator::Mod => float_divmod(left, right).1,
        Operator::Pow => float_power(left, right)?,
    }))
}

/// Divides two integers, rounding once.
fn true_quotient(left: &BigInt, right: &BigInt) -> Result<Value> {
    if right.sign() == Sign::NoSign {
        return Err(by_zero());
    }
    if left.bits() <= 53 && right.bits() <= 53 {
        let (left, right) = (Number::Big(left.clone()).float()?, Number::Big(right.clone()).float()?);
        return Ok(Value::Float(left / right));
    }
    // Scale so that the quotient has 66 bits or more; its last bit then stands for the rest.
    let shift = 66 + i64::try_from(right.bits()).unwrap_or(0) - i64::try_from(left.bits()).unwrap_or(0);
    let (up, down) = (shift.max(0).unsigned_abs(), (-shift).max(0).unsigned_abs());
    let (scaled, divisor) = (left.magnitude() << up, right.magnitude() << down);
    let mut quotient = &scaled / &divisor;
    if &quotient * &divisor != scaled {
        quotient |= num_bigint::BigUint::from(1u8);
    }
    let bits = quotient.bits().saturating_sub(64);
    let sticky = quotient.trailing_zeros().is_some_and(|zeros| zeros < bits);
    let top = u64::try_from(&quotient >> bits).unwrap_or(u64::MAX) | u64::from(sticky);
    #[allow(clippy::cast_precision_loss)]
    let float = scale(top as f64, i64::try_from(bits).unwrap_or(0) - shift);
    if float.is_infinite() {
        return Err(Fault::new("the quotient of two integers is too large for a float"));
    }
    let negative = (left.sign() == Sign::Minus) != (right.sign() == Sign::Minus);
    Ok(Value::Float(if negative { -float } else { float }))
}

fn scale(number: f64, exponent: i64) -> f64 {
    let exponent = i32::try_from(exponent.clamp(-4000, 4000)).unwrap_or(0);
    let half = exponent / 2;
    number * 2f64.powi(half) * 2f64.powi(exponent - half)
}

fn float_divmod(left: f64, right: f64) -> (f64, f64) {
    let mut rest = left % right;
    let mut quotient = (left - rest) / right;
    if rest == 0.0 {
        rest = 0f64.copysign(right);
    } else if (right < 0.0) != (rest < 0.0) {
        rest += right;
        quotient -= 1.0;
    }
    let floor = if quotient == 0.0 { 0f64.copysign(left / right) } else { quotient.floor() };
    let floor = if quotient - floor > 0.5 { floor + 1.0 } else { floor };
    (floor, rest)
}

fn float_power(left: f64, right: f64) -> Result<f64> {
    if left == 0.0 && right < 0.0 {
        return Err(by_zero());
    }
    if left < 0.0 && left.is_finite() && right.is_finite() && right.fract() != 0.0 {
        return Err(Fault::new("a power of a negative number is complex; complex numbers do not exist here"));
    }
    let power = left.powf(right);
    if power.is_infinite() && left.is_finite() && right.is_finite() {
        return Err(Fault::new("a power is too large for a float"));
    }
    Ok(power)
}

/// Negates or keeps a number.
pub(crate) fn sign(value: &Value, negative: bool) -> Result<Value> {
    match (value, negative) {
        (Value::Undefined(what), _) => Err(Fault::new(what.to_string())),
        (Value::Float(number), _) => Ok(Value::Float(if negative { -number } else { *number })),
        _ => match as_big(value) {
            Some(number) => Ok(Value::integer(if negative { -number } else { number })),
            None => Err(Fault::new(format!("a {} has no sign", value.kind()))),
        },
    }
}
