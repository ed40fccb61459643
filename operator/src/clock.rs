//! PURE: the time as decisions see it. It is read once a pass and handed in, so that tests choose it.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// One moment.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// For ages of what this process remembers.
    pub instant: Instant,
    /// For ages of objects.
    pub wall: Timestamp,
    /// When this process began to lead.
    pub started: Instant,
}

impl Clock {
    /// Time since an earlier moment of this process.
    #[must_use]
    pub fn since(&self, earlier: Instant) -> Duration {
        self.instant.saturating_duration_since(earlier)
    }

    /// Time since a moment of the calendar; zero where that is in the future.
    #[must_use]
    pub fn age(&self, created: Timestamp) -> Duration {
        self.wall.duration_since(created).try_into().unwrap_or_default()
    }
}
