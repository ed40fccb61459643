//! How the API server is watched.

use std::time::Duration;

use backon::ExponentialBuilder;
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
/// for a minute; for that long the operator and the webhook's copies would
/// get no events.
#[must_use]
pub fn backoff() -> ExponentialBackoff {
    let waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times();
    ExponentialBackoff::from(waits)
}
