//! The `grpc-timeout` header: up to 8 digits and a unit (H, M, S, m, u, n).

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

const HEADER: &str = "grpc-timeout";

/// Returns the time that the caller gives; none without a valid header.
pub(crate) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Writes the time that is left, in the finest unit that 8 digits hold.
pub(crate) fn write(headers: &mut HeaderMap, left: Duration) {
    let units = [(left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let (amount, unit) = units.into_iter().find(|(amount, _)| *amount < 100_000_000).unwrap_or((99_999_999, 'S'));
    if let Ok(value) = HeaderValue::try_from(format!("{amount}{unit}")) {
        headers.insert(HEADER, value);
    }
}

/// Removes the header.
pub(crate) fn clear(headers: &mut HeaderMap) {
    headers.remove(HEADER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for left in
            [Duration::from_micros(7), Duration::from_secs(60), Duration::from_secs(3600), Duration::from_secs(400_000)]
        {
            let mut headers = HeaderMap::new();
            write(&mut headers, left);
            assert_eq!(of(&headers), Some(left));
        }
    }

    #[test]
    fn anything_else_is_no_deadline() {
        for bad in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S"] {
            let headers =
                HeaderMap::from_iter([(http::header::HeaderName::from_static(HEADER), HeaderValue::from_static(bad))]);
            assert_eq!(of(&headers), None, "{bad}");
        }
    }
}
