//! How many calls a second a service of AWS gets: a token bucket for each, shared by all accounts and both controllers. IAM's own
//! limits hold for the whole AWS account, so that what the operator uses is not there for others.
//!
//! Not a crate: an attempt that the SDK repeats must take a permit without waiting for it, since it waits by its own back-off, and those
//! that wait must go on in the order in which they came. `governor` has neither.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A service with a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Identity and access management.
    Iam,
    /// S3.
    S3,
    /// STS.
    Sts,
}

impl Service {
    /// The service of an operation, `service:Operation`, or of a service's name in the SDK.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name.split(':').next()?.to_ascii_lowercase().as_str() {
            "iam" => Some(Self::Iam),
            "s3" => Some(Self::S3),
            "sts" => Some(Self::Sts),
            _ => None,
        }
    }
}

/// The limits of all services. Cheap to clone; the clones share them.
#[derive(Debug, Clone, Default)]
pub struct Limits(Option<Arc<[Mutex<Bucket>; 3]>>);

impl Limits {
    /// So many calls a second for each service, and so many at once after a while without calls.
    #[must_use]
    pub fn per_service(rate: f64, burst: u32) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate);
        let bucket = || Mutex::new(Bucket { interval, burst: burst.max(1), last: None });
        Self(Some(Arc::new([bucket(), bucket(), bucket()])))
    }

    /// How many passes at once use all permits, where each makes one call after another: with more of them, each would wait longer for
    /// its permits than a pass may take.
    #[must_use]
    pub fn passes(&self) -> usize {
        /// More do not make it faster.
        const MOST: usize = 8;
        let interval =
            self.0.as_ref().map(|buckets| buckets[0].lock().unwrap_or_else(PoisonError::into_inner).interval);
        let rate = interval.map_or(MOST as u128, |interval| 1_000_000 / interval.as_micros().max(1));
        usize::try_from(rate).unwrap_or(MOST).clamp(1, MOST)
    }

    /// Returns once a call may be made.
    pub(super) async fn permit(&self, service: Service) {
        let wait = self.take(service);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a permit, and returns how long a caller has to wait until it is valid.
    pub(super) fn take(&self, service: Service) -> Duration {
        let Some(buckets) = &self.0 else { return Duration::ZERO };
        let bucket = &buckets[service as usize];
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

/// A bucket by the time of its last permit (the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the last permit is valid, were none given in advance; `None` where none was taken.
    last: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Duration {
        let advance = self.interval * self.burst;
        // A full bucket is one whose last permit is as old as the burst.
        let full = now.checked_sub(advance);
        let last = match (self.last, full) {
            (Some(last), Some(full)) => last.max(full),
            (Some(last), None) => last,
            (None, full) => full.unwrap_or(now),
        };
        let valid = last + self.interval;
        self.last = Some(valid);
        valid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_permits_come_at_the_rate_in_order_and_a_pause_fills_the_bucket() {
        let begun = Instant::now() + Duration::from_hours(1);
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut bucket = Bucket { interval: Duration::from_millis(200), burst: 3, last: None };
        let waits: Vec<u128> = (0..6).map(|_| bucket.take(at(0)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 200, 400, 600], "burst, then the rate");
        assert_eq!(bucket.take(at(500)).as_millis(), 300, "the time that has passed counts");
        assert_eq!(bucket.take(at(10_000)).as_millis(), 0);
        let waits: Vec<u128> = (0..3).map(|_| bucket.take(at(10_000)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 200], "not more than the burst, however long the pause");
    }

    #[test]
    fn services_have_limits_of_their_own_and_clones_share_them() {
        let limits = Limits::per_service(0.001, 1);
        assert_eq!(limits.take(Service::Iam), Duration::ZERO);
        assert_eq!(limits.clone().take(Service::S3), Duration::ZERO);
        assert!(limits.clone().take(Service::Iam) > Duration::from_mins(15));
        assert_eq!(Limits::default().take(Service::Iam), Duration::ZERO, "no limit");
        let passes = [1.0, 5.0, 100.0].map(|rate| Limits::per_service(rate, 1).passes());
        assert_eq!((passes, Limits::default().passes()), ([1, 5, 8], 8));
        let known = ["iam:GetRole", "IAM", "S3", "sts:GetCallerIdentity", "EC2"].map(Service::of);
        assert_eq!(
            known,
            [Some(Service::Iam), Some(Service::Iam), Some(Service::S3), Some(Service::Sts), None]
        );
    }
}
