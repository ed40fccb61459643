//! What both controllers share in how they are woken.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::controller::Error as ControllerError;
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

/// All triggers of a controller wait for the slowest: kube's default of up to 30 s would let one broken watch delay all
/// others by as much.
#[must_use]
pub fn backoff() -> ExponentialBackoff {
    let waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times();
    ExponentialBackoff::from(waits)
}

/// Logs what a controller's stream says; an object that is gone is no news.
pub fn log<E, Q>(kind: &'static str, error: &ControllerError<E, Q>)
where
    E: std::error::Error + 'static,
    Q: std::error::Error + 'static,
    ControllerError<E, Q>: std::fmt::Display,
{
    match error {
        ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(..) => {}
        other => tracing::warn!(kind, error = %other, "watch failed; it is taken up again"),
    }
}
