//! How many calls a token may make: one bucket a token, refilled with time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Buckets by token name; names come from the token file, so there are no more than tokens.
#[derive(Debug)]
pub(crate) struct Rates {
    calls_per_s: f64,
    burst: f64,
    buckets: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Rates {
    /// Lets each name make `calls_per_s` calls a second, and `burst` at once.
    pub(crate) fn new(calls_per_s: f64, burst: u32) -> Self {
        Self { calls_per_s, burst: f64::from(burst.max(1)), buckets: Mutex::default() }
    }

    /// Counts a call of `name` at `now`.
    ///
    /// # Errors
    /// How long until the next call is allowed.
    pub(crate) fn take(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        let (level, at) = buckets.entry(name.to_owned()).or_insert((self.burst, now));
        *level = (*level + now.saturating_duration_since(*at).as_secs_f64() * self.calls_per_s).min(self.burst);
        *at = now;
        if *level >= 1.0 {
            *level -= 1.0;
            return Ok(());
        }
        // A rate of nearly nothing has no better answer than "much later".
        Err(Duration::from_secs_f64(((1.0 - *level) / self.calls_per_s).min(3600.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_nothing_is_asked_for_much_later() {
        let (rates, now) = (Rates::new(0.0, 1), Instant::now());
        assert_eq!(rates.take("a", now), Ok(()));
        assert_eq!(rates.take("a", now), Err(Duration::from_secs(3600)));
    }

    #[test]
    fn a_bucket_empties_and_refills() {
        let rates = Rates::new(2.0, 3);
        let start = Instant::now();
        (0..3).for_each(|_| assert_eq!(rates.take("a", start), Ok(())));
        assert_eq!(rates.take("a", start), Err(Duration::from_millis(500)));
        assert_eq!(rates.take("b", start), Ok(()), "each has a bucket of its own");
        assert_eq!(rates.take("a", start + Duration::from_millis(500)), Ok(()));
        assert!(rates.take("a", start + Duration::from_millis(600)).is_err());
    }
}
