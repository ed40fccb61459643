//! How the API server is watched.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::watcher::{self, ExponentialBackoff};

/// An API server that is gone without a word is given up after this long.
pub const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the API server keeps a watch open, in seconds: less than [`READ_TIMEOUT`], so that a quiet watch is no
/// silent one.
const WATCH_SECONDS: u32 = 45;

/// How everything is watched.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// How a watch that failed is taken up again. kube's default would wait for up to 30 s after an API server was away for a
/// minute; so long the operator's triggers, which wait for the slowest, and the webhook's copies would stand still.
#[must_use]
pub fn backoff() -> ExponentialBackoff {
    let waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times();
    ExponentialBackoff::from(waits)
}
