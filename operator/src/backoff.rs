//! How long to wait after failures in a row, for each object: kube's own back-off knows watches only.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failures in a row by object.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: Mutex<HashMap<String, u32>>,
    salt: RandomState,
}

impl Backoff {
    /// From `min`, doubling, up to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: Mutex::default(), salt: RandomState::new() }
    }

    /// Notes a failure and says how long to wait.
    pub fn failed(&self, object: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        *count = count.saturating_add(1);
        jittered(wait(self.min, self.max, *count), self.salt.hash_one((object, *count)))
    }

    /// Notes a success: the next failure starts anew. Also for objects that are gone.
    pub fn succeeded(&self, object: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    /// A period with jitter, so that a thousand objects made at once do not come back at once.
    pub fn spread(&self, object: &str, period: Duration) -> Duration {
        jittered(period, self.salt.hash_one(object))
    }
}

fn wait(min: Duration, max: Duration, failures: u32) -> Duration {
    min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(max)
}

/// Between 100 % and 120 % of the time: whoever comes back finds what was due after that time due.
fn jittered(time: Duration, hash: u64) -> Duration {
    let percent = 100 + u32::try_from(hash % 21).unwrap_or_default();
    time * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let (min, max) = (Duration::from_secs(1), Duration::from_mins(1));
        let waits: Vec<u64> = [1, 2, 3, 6, 7, 33, u32::MAX].map(|n| wait(min, max, n).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn a_success_starts_anew() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let first = backoff.failed("a");
        assert!((1000..=1200).contains(&first.as_millis()));
        assert!(backoff.failed("a") > first);
        backoff.succeeded("a");
        assert!(backoff.failed("a") < Duration::from_millis(1201));
    }
}
