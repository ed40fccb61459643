//! Leader election on a Lease. A lease expires by what this candidate observed on its own monotonic clock, never by another
//! node's wall clock (as in client-go; no crate for this kube version does it), and every write carries the resource version,
//! so that of two candidates one fails. The lease lowers contention; correctness rests on idempotent steps.
//!
//! A leader also watches its lease: it sees at once that another candidate has taken it, or that it was deleted. A candidate that has read
//! a lease, and then finds it deleted, waits for the lease's duration before it creates a new one: the former holder has stopped by then,
//! if it has the same settings. A candidate that has never read the lease does not wait.

use std::pin::pin;
use std::time::{Duration, Instant};

use crds::names::LEASE;
use futures::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};

use crate::timings::Timings;

/// The newest version of the lease that this candidate has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLease {
    /// The resource version.
    pub version: String,
    /// The holder's identity; `None` where the lease was released.
    pub holder: Option<String>,
    /// The lease's own `leaseDurationSeconds`: without a renewal it expires after that time.
    pub duration: Duration,
    /// When this version was first read here.
    pub first_observed: Instant,
    /// Whether the lease was deleted after that. Its holder may not know yet, and works on for as long as it was valid.
    pub deleted: bool,
}

/// What a candidate does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionStep {
    /// Create the lease.
    Create,
    /// Write our identity into the lease at that resource version: acquire or renew it.
    Write(String),
    /// Another candidate holds the lease: retry later.
    Wait,
    /// This candidate was the leader and must stop leading.
    StopLeading,
}

/// PURE: the next step. `renewed` is when our last successful write was begun, `None` while we do not lead.
#[must_use]
pub fn next_step(
    identity: &str,
    observed: Option<&ObservedLease>,
    renewed: Option<Instant>,
    now: Instant,
    timings: &Timings,
) -> ElectionStep {
    // One renewal earlier than the lease expires for the other candidates, so that there are never two leaders.
    if renewed.is_some_and(|at| now.duration_since(at) + timings.lease_renew >= timings.lease_duration) {
        return ElectionStep::StopLeading;
    }
    let Some(ObservedLease { version, holder, duration, first_observed, deleted }) = observed else {
        return ElectionStep::Create;
    };
    let write = if *deleted { ElectionStep::Create } else { ElectionStep::Write(version.clone()) };
    let is_holder = holder.as_deref() == Some(identity);
    let expired = now.duration_since(*first_observed) >= *duration;
    match renewed {
        Some(_) if is_holder => write,
        Some(_) => ElectionStep::StopLeading,
        None if is_holder || holder.is_none() || expired => write,
        None => ElectionStep::Wait,
    }
}

/// One candidate.
pub struct Elector {
    api: Api<Lease>,
    identity: String,
    timings: Timings,
    observed: Option<ObservedLease>,
    /// Since when the holder of the observed version holds the lease.
    acquired: Option<MicroTime>,
    /// How often the holder has changed, up to the observed version.
    transitions: i32,
    /// When our last successful write was begun, `None` while we do not lead.
    renewed: Option<Instant>,
}

impl Elector {
    /// A candidate for the lease in a namespace. No two candidates may have the same identity.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, identity: String, timings: Timings) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, identity, timings, observed: None, acquired: None, transitions: 0, renewed: None }
    }

    /// Returns once this candidate leads.
    pub async fn acquire(&mut self) {
        while !self.renew_or_acquire_once().await {
            tokio::time::sleep(self.timings.lease_retry).await;
        }
    }

    /// Renews the lease; returns once this candidate must stop leading.
    pub async fn renew_until_lost(&mut self) {
        let own = process::watch::config().fields(&format!("metadata.name={LEASE}"));
        let mut events = pin!(watcher(self.api.clone(), own).backoff(process::watch::backoff()));
        loop {
            // Where the watch is silent or refused, the loss is seen at the next renewal.
            tokio::select! {
                () = tokio::time::sleep(self.timings.lease_renew / 2) => {}
                () = changed_by_others(&mut events, &self.identity) => {}
            }
            if !self.renew_or_acquire_once().await {
                return;
            }
        }
    }

    /// Releases the lease, so that the next leader need not wait until it expires. A failure is logged only.
    pub async fn release(&mut self) {
        self.renewed = None;
        let limit = self.timings.lease_renew;
        if tokio::time::timeout(limit, self.clear()).await.is_err() {
            tracing::warn!("the lease could not be released within {limit:?}; it expires");
        }
    }

    async fn clear(&mut self) {
        let mut cleared = self.clear_holder().await;
        // The last renewal was not awaited any more, and the API server accepted it between our read and our write.
        if matches!(&cleared, Err(kube::Error::Api(status)) if status.is_conflict()) {
            cleared = self.clear_holder().await;
        }
        if let Err(error) = cleared {
            tracing::warn!(%error, "the lease could not be released; it expires");
        }
    }

    async fn clear_holder(&mut self) -> Result<(), kube::Error> {
        // The API server may have accepted the last renewal although its response was not awaited any more.
        let found = self.api.get_opt(LEASE).await?;
        self.observe(found);
        let is_held =
            |lease: &&ObservedLease| !lease.deleted && lease.holder.as_ref() == Some(&self.identity);
        let held = self.observed.as_ref().filter(is_held);
        if let Some(version) = held.map(|lease| lease.version.clone()) {
            self.api.replace(LEASE, &PostParams::default(), &self.lease(Some(version), None)).await?;
        }
        Ok(())
    }

    /// One read and at most one write of the lease. Returns whether this candidate leads after it.
    async fn renew_or_acquire_once(&mut self) -> bool {
        // A leader that gets no response must stop before another candidate may acquire the lease.
        let remaining = self.renewed.map(|at| {
            (at + self.timings.lease_duration)
                .saturating_duration_since(Instant::now() + self.timings.lease_renew)
        });
        let limit =
            remaining.map_or(self.timings.lease_renew, |remaining| remaining.min(self.timings.lease_renew));
        match tokio::time::timeout(limit, self.try_renew_or_acquire()).await {
            Ok(Ok(leads)) => return leads,
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be read or written"),
            Err(_) => tracing::warn!("reading and writing the lease took longer than {limit:?}"),
        }
        self.renewed.is_some()
            && next_step(&self.identity, self.observed.as_ref(), self.renewed, Instant::now(), &self.timings)
                != ElectionStep::StopLeading
    }

    async fn try_renew_or_acquire(&mut self) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(LEASE).await?;
        self.observe(found);
        let begun = Instant::now();
        let step = next_step(&self.identity, self.observed.as_ref(), self.renewed, begun, &self.timings);
        let written = match step {
            ElectionStep::Create => {
                self.api.create(&PostParams::default(), &self.lease(None, Some(&self.identity))).await
            }
            ElectionStep::Write(version) => {
                let lease = self.lease(Some(version), Some(&self.identity));
                self.api.replace(LEASE, &PostParams::default(), &lease).await
            }
            ElectionStep::Wait => return Ok(false),
            ElectionStep::StopLeading => {
                self.renewed = None;
                return Ok(false);
            }
        };
        match written {
            Ok(lease) => {
                self.observe(Some(lease));
                self.renewed = Some(begun);
                Ok(true)
            }
            // Another candidate wrote first, or our own write was accepted and its response was lost: the next read shows.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(self.renewed.is_some())
            }
            Err(error) => Err(error),
        }
    }

    fn observe(&mut self, found: Option<Lease>) {
        let Some(lease) = found else {
            (self.acquired, self.transitions) = (None, 0);
            if let Some(lease) = self.observed.as_mut().filter(|lease| !lease.deleted) {
                // Its holder may have renewed it until now.
                (lease.deleted, lease.first_observed) = (true, Instant::now());
                lease.duration = lease.duration.min(self.timings.lease_duration);
            }
            return;
        };
        let version = lease.resource_version().unwrap_or_default();
        if self.observed.as_ref().is_some_and(|observed| observed.version == version) {
            return; // the time of the first observation counts
        }
        let spec = lease.spec.unwrap_or_default();
        (self.acquired, self.transitions) = (spec.acquire_time, spec.lease_transitions.unwrap_or_default());
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        self.observed = Some(ObservedLease {
            version,
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration: Duration::from_secs(seconds),
            first_observed: Instant::now(),
            deleted: false,
        });
    }

    /// The lease as it is written next. `acquireTime` and `leaseTransitions` say when and how often the holder changed, as in
    /// client-go: a renewal keeps both, and so does a release.
    fn lease(&self, version: Option<String>, holder: Option<&str>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = self.observed.as_ref().filter(|lease| !lease.deleted);
        let changes =
            holder.is_some_and(|new| before.is_none_or(|lease| lease.holder.as_deref() != Some(new)));
        let acquired = self.acquired.clone().filter(|_| !changes).unwrap_or_else(|| now.clone());
        // The first holder is not a change.
        let transitions = self.transitions.saturating_add(i32::from(changes && before.is_some()));
        Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.into()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.unwrap_or_default().to_owned()),
                lease_duration_seconds: i32::try_from(self.timings.lease_duration.as_secs()).ok(),
                acquire_time: Some(acquired),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Returns once an event of the lease's watch shows another holder, or that the lease was deleted.
async fn changed_by_others(
    events: &mut (impl Stream<Item = watcher::Result<Event<Lease>>> + Unpin),
    identity: &str,
) {
    while let Some(event) = events.next().await {
        let is_other = |lease: &Lease| {
            lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(identity)
        };
        match event {
            Ok(Event::Apply(lease) | Event::InitApply(lease)) if is_other(&lease) => return,
            Ok(Event::Delete(_)) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "the lease cannot be watched");
                break; // until the next renewal
            }
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn observed(holder: Option<&str>, at: Instant) -> ObservedLease {
        let duration = Duration::from_secs(15);
        let holder = holder.map(Into::into);
        ObservedLease { version: "7".into(), holder, duration, first_observed: at, deleted: false }
    }

    #[test]
    fn a_candidate_waits_a_whole_lease_duration_after_its_own_observation() {
        let (timings, start) = (Timings::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let step = |lease, renewed, now| next_step("a", lease, renewed, now, &timings);
        let (by_other, released) = (observed(Some("b"), start), observed(None, start));
        assert_eq!(step(None, None, start), ElectionStep::Create);
        assert_eq!(step(Some(&by_other), None, after(14)), ElectionStep::Wait);
        assert_eq!(step(Some(&by_other), None, after(15)), ElectionStep::Write("7".into()));
        assert_eq!(step(Some(&released), None, start), ElectionStep::Write("7".into()));
        assert_eq!(step(Some(&by_other), Some(start), after(1)), ElectionStep::StopLeading);
    }

    /// Somebody deletes the lease: its holder puts it back, and another candidate waits as if it were still there.
    #[test]
    fn a_lease_that_is_deleted_is_not_taken_before_it_would_have_expired() {
        let (timings, start) = (Timings::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let deleted = |holder| ObservedLease { deleted: true, ..observed(holder, start) };
        let step = |lease: ObservedLease, renewed, now| next_step("a", Some(&lease), renewed, now, &timings);
        assert_eq!(step(deleted(Some("a")), Some(start), after(1)), ElectionStep::Create);
        assert_eq!(step(deleted(Some("b")), None, after(14)), ElectionStep::Wait);
        assert_eq!(step(deleted(Some("b")), None, after(15)), ElectionStep::Create);
        assert_eq!(step(deleted(None), None, start), ElectionStep::Create);
    }

    proptest! {
        /// At any time, the leader has stopped before a candidate that observed its last write may acquire the lease.
        #[test]
        fn there_are_never_two_leaders(write_ms in 0_u64..60_000, age_ms in 0_u64..60_000, delay_ms in 0_u64..5_000) {
            let (timings, start) = (Timings::default(), Instant::now());
            let written = start + Duration::from_millis(write_ms);
            let now = written + Duration::from_millis(age_ms);
            // The candidate cannot observe a write before it was begun.
            let by_leader = observed(Some("leader"), written + Duration::from_millis(delay_ms));
            let acquires = now >= by_leader.first_observed
                && next_step("candidate", Some(&by_leader), None, now, &timings) != ElectionStep::Wait;
            let own = observed(Some("leader"), written);
            let leads =
                next_step("leader", Some(&own), Some(written), now, &timings) != ElectionStep::StopLeading;
            prop_assert!(!(acquires && leads));
        }
    }
}
