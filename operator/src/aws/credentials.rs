//! One set of credentials for all clients. The SDK's own cache keeps what it has until it expires, also after AWS refused it, and
//! asks again at once after a failure; so it is turned off, and this one is asked before every signed request.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use aws_config::identity::IdentityCache;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider, future};

use super::cause::stable_cause;
use crate::backoff::Backoff;

/// The wait after a first failure, and after a first refusal of new credentials; it doubles with every further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: what mends the cause works after that time at the latest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Credentials that worked for that long and are refused then were made unusable in AWS: there is no wait.
const PROVEN: Duration = Duration::from_mins(1);
/// The limit of one attempt, the SDK's retries included.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// Credentials are not used any more that long before they expire (the SDK's own value).
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// How long credentials without an expiry are used (the SDK's own value).
const WITHOUT_EXPIRY: Duration = Duration::from_mins(15);

/// The credentials that another provider made, kept until shortly before they expire or until AWS refuses them. Cheap to clone.
#[derive(Clone)]
pub(super) struct KeptCredentials(Arc<Inner>);

struct Inner {
    source: SharedCredentialsProvider,
    state: Mutex<State>,
    /// Locked during an attempt: other callers that need credentials wait for its result.
    attempt: tokio::sync::Mutex<()>,
    backoff: Backoff,
}

/// What is known of the credentials.
#[derive(Default)]
struct State {
    kept: Option<Kept>,
    /// The last attempt, where it failed: why, and when the next one may be made.
    failed: Option<(String, Instant)>,
    /// Failed attempts in a row.
    failures: u32,
    /// Refusals in a row of credentials that were new.
    refusals: u32,
}

struct Kept {
    credentials: Credentials,
    since: Instant,
    until: SystemTime,
}

/// What a call that needs credentials does.
#[derive(Debug, PartialEq)]
enum Next {
    Use(Credentials),
    /// The last attempt failed a moment ago, for this reason.
    Fail(String),
    Attempt,
}

impl State {
    fn next(&self, now: Instant, wall: SystemTime) -> Next {
        match (&self.kept, &self.failed) {
            (Some(kept), _) if wall < kept.until => Next::Use(kept.credentials.clone()),
            (_, Some((why, again))) if now < *again => Next::Fail(why.clone()),
            _ => Next::Attempt,
        }
    }

    fn obtained(&mut self, credentials: Credentials, now: Instant, wall: SystemTime) {
        let until = credentials.expiry().map_or(wall + WITHOUT_EXPIRY, |expiry| expiry - EXPIRY_MARGIN);
        self.kept = Some(Kept { credentials, since: now, until });
        (self.failed, self.failures) = (None, 0);
    }

    fn failed(&mut self, why: String, now: Instant, backoff: &Backoff) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff.wait("attempt", self.failures);
        self.failed = Some((why, now + wait));
        wait
    }

    /// AWS refused the credentials. Returns whether they are dropped: not where they are newer than the wait. Many calls are
    /// refused at once, and a call that was signed with the dropped ones may be answered later.
    fn refused(&mut self, now: Instant, backoff: &Backoff) -> bool {
        let Some(kept) = &self.kept else { return false };
        let age = now.duration_since(kept.since);
        if age >= PROVEN {
            self.refusals = 0;
        }
        if self.refusals > 0 && age < backoff.wait("refusal", self.refusals) {
            return false;
        }
        self.refusals = self.refusals.saturating_add(1);
        self.kept = None;
        true
    }
}

impl KeptCredentials {
    /// The same configuration with its provider behind this one, and with the SDK's cache turned off. Without a provider all
    /// stays as it is.
    pub(super) fn over(config: &SdkConfig) -> (SdkConfig, Option<Self>) {
        let Some(source) = config.credentials_provider() else { return (config.clone(), None) };
        let kept = Self(Arc::new(Inner {
            source,
            state: Mutex::default(),
            attempt: tokio::sync::Mutex::default(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        }));
        let builder = config.to_builder().identity_cache(IdentityCache::no_cache());
        (builder.credentials_provider(SharedCredentialsProvider::new(kept.clone())).build(), Some(kept))
    }

    /// AWS refused a call that was signed with the credentials: the next call obtains new ones. Those of a role that was
    /// deleted and made again stay refused until they expire.
    pub(super) fn refused(&self) {
        if self.state().refused(Instant::now(), &self.0.backoff) {
            tracing::warn!("AWS refused the credentials: the next call obtains new ones");
        }
    }

    async fn credentials(&self) -> Result {
        if let Some(known) = self.known() {
            return known;
        }
        let _attempt = self.0.attempt.lock().await;
        // Another call may have made the attempt meanwhile.
        if let Some(known) = self.known() {
            return known;
        }
        let answer = tokio::time::timeout(ATTEMPT_LIMIT, self.0.source.provide_credentials()).await;
        let answer = answer.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(ATTEMPT_LIMIT)));
        let now = Instant::now();
        match answer {
            Ok(credentials) => {
                self.state().obtained(credentials.clone(), now, SystemTime::now());
                Ok(credentials)
            }
            Err(error) => {
                let why = stable_cause(&error);
                let wait = self.state().failed(why.clone(), now, &self.0.backoff);
                tracing::warn!(
                    error = why,
                    ?wait,
                    "no AWS credentials; the next attempt is made after the wait"
                );
                Err(error)
            }
        }
    }

    fn known(&self) -> Option<Result> {
        match self.state().next(Instant::now(), SystemTime::now()) {
            Next::Use(credentials) => Some(Ok(credentials)),
            Next::Fail(why) => Some(Err(CredentialsError::provider_error(why))),
            Next::Attempt => None,
        }
    }

    /// Every change is one assignment after another: a panic leaves nothing half-done that matters.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debug for KeptCredentials {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("KeptCredentials")
    }
}

impl ProvideCredentials for KeptCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(expires_in: Option<Duration>, wall: SystemTime) -> Credentials {
        Credentials::new("id", "secret", None, expires_in.map(|life| wall + life), "test")
    }

    #[test]
    fn credentials_are_kept_until_shortly_before_they_expire() {
        let (now, wall, mut state) = (Instant::now(), SystemTime::now(), State::default());
        assert_eq!(state.next(now, wall), Next::Attempt);
        for (life, last) in
            [(Some(Duration::from_hours(1)), Duration::from_secs(3589)), (None, Duration::from_secs(899))]
        {
            let new = credentials(life, wall);
            state.obtained(new.clone(), now, wall);
            assert_eq!(state.next(now, wall + last), Next::Use(new));
            assert_eq!(state.next(now, wall + last + Duration::from_secs(1)), Next::Attempt);
        }
    }

    #[test]
    fn a_failure_answers_every_call_until_its_wait_is_over_and_waits_grow() {
        let (start, wall, mut state) = (Instant::now(), SystemTime::now(), State::default());
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut now = start;
        for least in [1, 2, 4, 8, 10, 10] {
            let wait = state.failed("no token".into(), now, &backoff);
            assert!(wait >= Duration::from_secs(least) && wait <= LONGEST_WAIT * 6 / 5, "{wait:?}");
            assert_eq!(state.next(now + wait * 99 / 100, wall), Next::Fail("no token".into()));
            assert_eq!(state.next(now + wait, wall), Next::Attempt);
            now += wait;
        }
        state.obtained(credentials(None, wall), now, wall);
        assert_eq!(state.failures, 0);
    }

    #[test]
    fn refused_credentials_are_dropped_once_and_new_ones_only_after_a_wait_that_grows() {
        let (start, wall, mut state) = (Instant::now(), SystemTime::now(), State::default());
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut now = start;
        state.obtained(credentials(None, wall), now, wall);
        now += Duration::from_hours(1);
        assert!(state.refused(now, &backoff), "at once");
        assert!(!state.refused(now, &backoff), "there is nothing to drop");
        for least in [1, 2, 4, 8, 10, 10] {
            state.obtained(credentials(None, wall), now, wall);
            let least = Duration::from_secs(least);
            assert!(!state.refused(now + least * 99 / 100, &backoff), "{least:?}");
            now += least * 6 / 5;
            assert!(state.refused(now, &backoff), "{least:?}");
        }
        state.obtained(credentials(None, wall), now, wall);
        assert!(state.refused(now + PROVEN, &backoff));
        assert_eq!(state.refusals, 1, "the credentials had worked");
    }
}
