//! How the API server is watched.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, ExponentialBackoff};

/// A connection to the API server on which nothing arrives for this long is closed: the other end may have vanished without
/// closing it.
pub const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the API server keeps a watch open, in seconds: less than [`READ_TIMEOUT`], so that a watch without events does not
/// run into it.
const WATCH_SECONDS: u32 = 45;

/// The configuration of every watch.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// The delays between retries of a watch that failed. kube's default waits for up to 30 s after an API server was unreachable
/// for a minute; for that long the operator and the webhook's copies would get no events.
#[must_use]
pub fn backoff() -> impl Backoff {
    /// The longest wait, which may be doubled by chance, is no time without failures.
    const WITHOUT_FAILURES: Duration = Duration::from_secs(10);
    let waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times();
    Waits(ResetTimerBackoff::new(ExponentialBackoff::from(waits), WITHOUT_FAILURES))
}

/// Waits that are short again after a time without failures. Not after any event: kube's watch says that it begins before each list,
/// also before one that fails.
struct Waits(ResetTimerBackoff<ExponentialBackoff>);

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for Waits {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_although_a_watch_begins_before_each_failure() {
        let mut waits = backoff();
        for _ in 0..5 {
            waits.next();
            waits.reset();
        }
        assert!(waits.next().is_some_and(|wait| wait >= Duration::from_secs(2)));
    }
}
