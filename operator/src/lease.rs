//! Leader election on a Lease. Expiry is judged by what was observed on the local monotonic clock, never by another
//! node's wall clock (as client-go does; no crate on this kube version does), and every write carries the resource
//! version, so that of two candidates one loses. The lease lowers contention; correctness rests on idempotent steps.

use std::time::{Duration, Instant};

use crds::names::LEASE;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::timings::Timings;

/// A lease as it was last seen to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The resource version.
    pub version: String,
    /// Who holds it; `None` where it was given back.
    pub holder: Option<String>,
    /// How long its holder's silence is honoured.
    pub duration: Duration,
    /// When this version was first seen here.
    pub at: Instant,
}

/// What a candidate does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the lease.
    Create,
    /// Write ourselves into that version.
    Write(String),
    /// Look again later.
    Wait,
    /// We led, and may not go on.
    Lost,
}

/// PURE: the next step. `led` is when our last successful write was begun, if we lead.
#[must_use]
pub fn step(me: &str, seen: Option<&Seen>, led: Option<Instant>, now: Instant, timings: &Timings) -> Step {
    if led.is_some_and(|at| now.duration_since(at) + timings.lease_renew >= timings.lease_duration) {
        return Step::Lost; // before anybody else may think so
    }
    let Some(Seen { version, holder, duration, at }) = seen else { return Step::Create };
    let mine = holder.as_deref() == Some(me);
    match led {
        Some(_) if mine => Step::Write(version.clone()),
        Some(_) => Step::Lost,
        None if mine || holder.is_none() || now.duration_since(*at) >= *duration => {
            Step::Write(version.clone())
        }
        None => Step::Wait,
    }
}

/// One candidate.
pub struct Elector {
    api: Api<Lease>,
    me: String,
    timings: Timings,
    seen: Option<Seen>,
    led: Option<Instant>,
}

impl Elector {
    /// A candidate of that name, which must be unique: the pod's.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, me: String, timings: Timings) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace), me, timings, seen: None, led: None }
    }

    /// Returns once we lead.
    pub async fn acquire(&mut self) {
        while !self.turn().await {
            tokio::time::sleep(self.timings.lease_retry).await;
        }
    }

    /// Gives signs of life; returns once we must not lead any more.
    pub async fn hold(&mut self) {
        loop {
            tokio::time::sleep(self.timings.lease_renew / 2).await;
            if !self.turn().await {
                return;
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait.
    pub async fn release(&mut self) {
        if self.led.take().is_none() {
            return;
        }
        if let Err(error) = self.give_back().await {
            tracing::warn!(%error, "the lease could not be given back; it runs out by itself");
        }
    }

    async fn give_back(&mut self) -> Result<(), kube::Error> {
        // The last sign of life may have been counted, although its answer was not awaited any more.
        let found = self.api.get_opt(LEASE).await?;
        self.look(found);
        let ours = self.seen.as_ref().filter(|seen| seen.holder.as_ref() == Some(&self.me));
        if let Some(version) = ours.map(|seen| seen.version.clone()) {
            self.api.replace(LEASE, &PostParams::default(), &self.lease(Some(version), None)).await?;
        }
        Ok(())
    }

    /// One look and one step; whether we lead after it.
    async fn turn(&mut self) -> bool {
        // A leader that gets no answer must know it before anybody else may take over.
        let left = self.led.map(|at| {
            (at + self.timings.lease_duration)
                .saturating_duration_since(Instant::now() + self.timings.lease_renew)
        });
        let limit = left.map_or(self.timings.lease_renew, |left| left.min(self.timings.lease_renew));
        match tokio::time::timeout(limit, self.try_turn()).await {
            Ok(Ok(leads)) => return leads,
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be read or written"),
            Err(_) => tracing::warn!("the API server did not answer about the lease within {limit:?}"),
        }
        self.led.is_some()
            && step(&self.me, self.seen.as_ref(), self.led, Instant::now(), &self.timings) != Step::Lost
    }

    async fn try_turn(&mut self) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(LEASE).await?;
        self.look(found);
        let begun = Instant::now();
        let written = match step(&self.me, self.seen.as_ref(), self.led, begun, &self.timings) {
            Step::Create => self.api.create(&PostParams::default(), &self.lease(None, Some(&self.me))).await,
            Step::Write(version) => {
                let lease = self.lease(Some(version), Some(&self.me));
                self.api.replace(LEASE, &PostParams::default(), &lease).await
            }
            Step::Wait => return Ok(false),
            Step::Lost => {
                self.led = None;
                return Ok(false);
            }
        };
        match written {
            Ok(lease) => {
                self.look(Some(lease));
                self.led = Some(begun);
                Ok(true)
            }
            // Somebody was faster, or our own write was counted although its answer was lost: look again.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(self.led.is_some())
            }
            Err(error) => Err(error),
        }
    }

    fn look(&mut self, found: Option<Lease>) {
        let Some(lease) = found else {
            self.seen = None;
            return;
        };
        let version = lease.resource_version().unwrap_or_default();
        if self.seen.as_ref().is_some_and(|seen| seen.version == version) {
            return;
        }
        let spec = lease.spec.unwrap_or_default();
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        self.seen =
            Some(Seen { version, holder, duration: Duration::from_secs(seconds), at: Instant::now() });
    }

    fn lease(&self, version: Option<String>, holder: Option<&str>) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.into()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.unwrap_or_default().to_owned()),
                lease_duration_seconds: i32::try_from(self.timings.lease_duration.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(holder: Option<&str>, at: Instant) -> Seen {
        Seen { version: "7".into(), holder: holder.map(Into::into), duration: Duration::from_secs(15), at }
    }

    #[test]
    fn a_candidate_waits_a_whole_lease_from_what_it_saw_itself() {
        let (timings, start) = (Timings::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let other = seen(Some("other"), start);
        assert_eq!(step("me", None, None, start, &timings), Step::Create);
        assert_eq!(step("me", Some(&other), None, after(14), &timings), Step::Wait);
        assert_eq!(step("me", Some(&other), None, after(15), &timings), Step::Write("7".into()));
        assert_eq!(step("me", Some(&seen(None, start)), None, start, &timings), Step::Write("7".into()));
        assert_eq!(step("me", Some(&other), Some(start), after(1), &timings), Step::Lost);
    }

    proptest! {
        /// A leader steps down before a candidate that saw its last write may take over, whenever both look.
        #[test]
        fn never_two(write_ms in 0_u64..60_000, look_ms in 0_u64..60_000, delay_ms in 0_u64..5_000) {
            let (timings, start) = (Timings::default(), Instant::now());
            let written = start + Duration::from_millis(write_ms);
            let now = written + Duration::from_millis(look_ms);
            // The candidate cannot see a write before it was begun.
            let other = seen(Some("leader"), written + Duration::from_millis(delay_ms));
            let takes = now >= other.at && step("me", Some(&other), None, now, &timings) != Step::Wait;
            let leads = step("leader", Some(&seen(Some("leader"), written)), Some(written), now, &timings) != Step::Lost;
            prop_assert!(!(takes && leads));
        }
    }
}
