//! How long to wait after failures in a row: kube's own back-off knows watches only.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that grow with failures, and periods that are spread.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    salt: RandomState,
}

impl Backoff {
    /// From `min`, doubling, up to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, salt: RandomState::new() }
    }

    /// The wait after so many failures of an object in a row.
    #[must_use]
    pub fn wait(&self, object: &str, failures: u32) -> Duration {
        jittered(doubled(self.min, self.max, failures), self.salt.hash_one((object, failures)))
    }

    /// A period with jitter, so that a thousand objects made at once do not come back at once.
    #[must_use]
    pub fn spread(&self, object: &str, period: Duration) -> Duration {
        jittered(period, self.salt.hash_one(object))
    }
}

fn doubled(min: Duration, max: Duration, failures: u32) -> Duration {
    min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(max)
}

/// Between 100 % and 120 % of the time: what is due after that time is due then.
fn jittered(time: Duration, hash: u64) -> Duration {
    let percent = 100 + u32::try_from(hash % 21).unwrap_or_default();
    time * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_by_a_fifth() {
        let (min, max) = (Duration::from_secs(1), Duration::from_mins(1));
        let waits: Vec<u64> = [1, 2, 3, 6, 7, 33, u32::MAX].map(|n| doubled(min, max, n).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 32, 60, 60, 60]);
        let backoff = Backoff::new(min, max);
        for failures in 1..9 {
            let (exact, wait) = (doubled(min, max, failures), backoff.wait("a", failures));
            assert!((exact..=exact * 6 / 5).contains(&wait), "{failures}: {wait:?}");
        }
        let periods: Vec<Duration> = (0..100).map(|n| backoff.spread(&format!("{n}"), max)).collect();
        assert!(periods.iter().all(|period| (max..=max * 6 / 5).contains(period)), "{periods:?}");
        let distinct: std::collections::BTreeSet<&Duration> = periods.iter().collect();
        assert!(distinct.len() > 10, "{distinct:?}");
    }
}
