//! When a failed call is made again: pure rules, with the random number and the time as arguments.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How often and how fast a call is made again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Upper end of the first pause; each later one is twice as long.
    pub base: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// Repeats as a share of calls over the last 10 s; 10 repeats a second are always allowed.
    pub budget: f32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, base: Duration::from_millis(50), longest: Duration::from_secs(2), budget: 0.2 }
    }
}

impl Retry {
    /// Returns the pause before the next attempt, or `None` for what a repeat cannot mend.
    ///
    /// # Arguments
    /// * `status` - how the call failed.
    /// * `made` - attempts that were made, from 1.
    /// * `unit` - a uniform number in [0, 1): full jitter.
    pub fn pause(&self, status: &Status, made: u32, unit: f64) -> Option<Duration> {
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let again = match status.code() {
            Code::Unavailable => true,
            Code::ResourceExhausted => asked.is_some(),
            _ => false,
        };
        if !again || made >= self.attempts {
            return None;
        }
        let upper = self.base.saturating_mul(1 << (made - 1).min(16)).min(self.longest);
        Some(asked.unwrap_or_default() + upper.mul_f64(unit))
    }
}

/// Returns 64 bits that differ from call to call and process to process; not for secrets.
pub(crate) fn random() -> u64 {
    // Seeded by the system once a thread, then counted on: no system call.
    RandomState::new().hash_one(0)
}

/// Returns a uniform number in [0, 1).
pub(crate) fn unit() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use joust_proto::{Failure, Reason};

    use super::*;

    #[test]
    fn only_what_a_repeat_can_mend_is_repeated() {
        let retry = Retry::default();
        let pause = |status: &Status, made| retry.pause(status, made, 0.5);
        assert_eq!(pause(&Status::unavailable("x"), 1), Some(Duration::from_millis(25)));
        assert_eq!(pause(&Status::unavailable("x"), 3), Some(Duration::from_millis(100)));
        assert_eq!(pause(&Status::unavailable("x"), 5), None);
        assert_eq!(pause(&Status::resource_exhausted("x"), 1), None, "says no time");
        let full = Status::from(Failure::new(Reason::QueueFull, "x").retry_after(Duration::from_millis(300)));
        assert_eq!(pause(&full, 1), Some(Duration::from_millis(325)));
        for code in [Code::DeadlineExceeded, Code::Internal, Code::Aborted, Code::Unauthenticated, Code::Unknown] {
            assert_eq!(pause(&Status::new(code, "x"), 1), None);
        }
    }

    #[test]
    fn pauses_stop_growing() {
        let retry = Retry { attempts: 100, ..Retry::default() };
        assert_eq!(retry.pause(&Status::unavailable("x"), 99, 1.0), Some(retry.longest));
    }
}
