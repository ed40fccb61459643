//! What the webhook counts. Labels come from closed sets, so that no cluster can make them explode.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::admit::{Answer, Entry};
use crate::lookup::Origin;

/// What became of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The pod got what it lacked.
    Mutated,
    /// The pod had everything already.
    Complete,
    /// The `ServiceAccount` has no identity.
    NoRole,
    /// The pod names no `ServiceAccount`.
    NoServiceAccount,
    /// The review is not about the creation of a pod.
    NotOurs,
    /// The pod was refused.
    Denied,
    /// The pod was refused because it must not go without an identity, and has none yet.
    Required,
    /// The review could not be read.
    Malformed,
    /// The answer is not known: the API server counts a failed call.
    Unavailable,
    /// A defect of this program.
    Panicked,
}

impl Outcome {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mutated => "mutated",
            Self::Complete => "complete",
            Self::NoRole => "no_role",
            Self::NoServiceAccount => "no_service_account",
            Self::NotOurs => "not_ours",
            Self::Denied => "denied",
            Self::Required => "required",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Panicked => "panicked",
        }
    }
}

/// Why a pod that was meant to have an identity, or may have been, went without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Without {
    /// It was admitted before its identity was known; that became known within a minute.
    BeforeIdentity,
    /// Its binding gives no identity (yet).
    BindingUnusable,
    /// A container has no place left for the token.
    NoPlace,
    /// Whether it has one could not be found out, and the entry lets it pass.
    Unknown,
}

impl Without {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::BeforeIdentity, Self::BindingUnusable, Self::NoPlace, Self::Unknown];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeIdentity => "before_identity",
            Self::BindingUnusable => "binding_unusable",
            Self::NoPlace => "no_place",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
    entry: &'static str,
    outcome: &'static str,
    source: &'static str,
    lookup: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// All of the webhook's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reviews: Family<Review, Counter>,
    duration: Histogram,
    without_identity: Family<Reason, Counter>,
    live_lookups: Family<ResultLabel, Counter>,
    synced: Family<Kind, Gauge>,
    objects: Family<Kind, Gauge>,
    certificate_loads: Family<ResultLabel, Counter>,
    certificate_not_before: Gauge,
    certificate_not_after: Gauge,
    ca_bundle_trusts: Gauge,
    mapping_entries: Family<ResultLabel, Gauge>,
    container_credentials: Gauge,
    container_credentials_refused: Counter,
    connections: Gauge,
    connections_evicted: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            reviews: Family::default(),
            // From what a cached answer costs to longer than the API server waits.
            duration: Histogram::new([
                0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 10.0,
            ]),
            without_identity: Family::default(),
            live_lookups: Family::default(),
            synced: Family::default(),
            objects: Family::default(),
            certificate_loads: Family::default(),
            certificate_not_before: Gauge::default(),
            certificate_not_after: Gauge::default(),
            ca_bundle_trusts: Gauge::default(),
            mapping_entries: Family::default(),
            container_credentials: Gauge::default(),
            container_credentials_refused: Counter::default(),
            connections: Gauge::default(),
            connections_evicted: Counter::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let mut registry = Registry::with_prefix("podidentity_webhook");
        registry.register(
            "reviews",
            "Admission reviews by entry, outcome, source of the identity and source of the facts",
            self.reviews.clone(),
        );
        registry.register(
            "review_duration_seconds",
            "Time from a review's headers to its answer",
            self.duration.clone(),
        );
        registry.register(
            "pods_without_identity",
            "Pods that were meant to have an identity, or may have been, and were admitted without",
            self.without_identity.clone(),
        );
        registry.register(
            "live_lookups",
            "Looks at the API server for ServiceAccounts that the cache does not have",
            self.live_lookups.clone(),
        );
        registry.register("cache_synced", "1 once the cache of that kind is complete", self.synced.clone());
        registry.register("cache_objects", "Objects in the cache of that kind", self.objects.clone());
        registry.register(
            "certificate_loads",
            "Serving certificates seen, by whether they could be used",
            self.certificate_loads.clone(),
        );
        registry.register(
            "certificate_not_before_timestamp_seconds",
            "When the serving certificate begins",
            self.certificate_not_before.clone(),
        );
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When the serving certificate ends",
            self.certificate_not_after.clone(),
        );
        registry.register(
            "ca_bundle_trusts_certificate",
            "1 while the live webhook configuration trusts the serving certificate",
            self.ca_bundle_trusts.clone(),
        );
        registry.register(
            "config_map_entries",
            "Entries of the ConfigMap with roles, by whether they could be used",
            self.mapping_entries.clone(),
        );
        registry.register(
            "container_credentials_identities",
            "ServiceAccounts in container-credentials mode",
            self.container_credentials.clone(),
        );
        registry.register(
            "container_credentials_refused",
            "Versions of the container-credentials file that could not be used",
            self.container_credentials_refused.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_evicted",
            "Connections closed to make room for newer ones",
            self.connections_evicted.clone(),
        );
        self.registry = registry;
        self.begin();
        self
    }

    /// What an alert looks at begins at 0: of a series that begins at 1 Prometheus sees no increase.
    fn begin(&self) {
        for why in Without::ALL {
            self.without_identity.get_or_create(&Reason { reason: why.as_str() }).inc_by(0);
        }
        for entry in Entry::ALL.map(Entry::as_str) {
            let failures = [
                (Outcome::Malformed, ""),
                (Outcome::Panicked, ""),
                (Outcome::Unavailable, Origin::Live.as_str()),
            ];
            for (outcome, lookup) in failures {
                let outcome = outcome.as_str();
                self.reviews.get_or_create(&Review { entry, outcome, source: "", lookup }).inc_by(0);
            }
        }
        for result in ["ok", "busy", "error", "timeout"] {
            self.live_lookups.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        self.mapping(0, 0);
        for result in ["ok", "refused"] {
            self.certificate_loads.get_or_create(&ResultLabel { result }).inc_by(0);
        }
    }

    /// Counts a review. `source` is where the identity, `lookup` where the facts came from; empty where neither.
    pub fn reviewed(&self, entry: &'static str, answer: &Answer, took: Duration) {
        let Answer { outcome, source, lookup, .. } = *answer;
        self.reviews.get_or_create(&Review { entry, outcome: outcome.as_str(), source, lookup }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a pod that went without an identity.
    pub fn without_identity(&self, why: Without) {
        self.without_identity.get_or_create(&Reason { reason: why.as_str() }).inc();
    }

    /// Counts a look at the API server. `result` is `ok`, `busy`, `error` or `timeout`.
    pub fn looked_up(&self, result: &'static str) {
        self.live_lookups.get_or_create(&ResultLabel { result }).inc();
    }

    /// Notes the state of a cache.
    pub fn cache(&self, kind: &'static str, synced: bool, objects: usize) {
        self.synced.get_or_create(&Kind { kind }).set(i64::from(synced));
        self.objects.get_or_create(&Kind { kind }).set(number(objects));
    }

    /// Notes the entries of the ConfigMap, and how many of them cannot be used.
    pub fn mapping(&self, entries: usize, problems: usize) {
        for (result, count) in [("ok", entries), ("refused", problems)] {
            self.mapping_entries.get_or_create(&ResultLabel { result }).set(number(count));
        }
    }

    /// Notes how many `ServiceAccount`s are in container-credentials mode.
    pub fn container_credentials(&self, identities: usize) {
        self.container_credentials.set(number(identities));
    }

    /// Counts a container-credentials file that cannot be used.
    pub fn container_credentials_refused(&self) {
        self.container_credentials_refused.inc();
    }

    /// Notes how many connections are open, and how many were closed to make room so far.
    pub fn connections(&self, open: usize, evicted: u64) {
        self.connections.set(number(open));
        let counted = self.connections_evicted.get();
        self.connections_evicted.inc_by(evicted.saturating_sub(counted));
    }

    /// Notes whether the live webhook configuration trusts the certificate.
    pub fn trusted(&self, trusted: bool) {
        self.ca_bundle_trusts.set(i64::from(trusted));
    }

    /// Notes a usable certificate, its begin and its end, in seconds since 1970.
    pub fn certificate(&self, not_before: i64, not_after: i64) {
        self.certificate_loads.get_or_create(&ResultLabel { result: "ok" }).inc();
        self.certificate_not_before.set(not_before);
        self.certificate_not_after.set(not_after);
    }

    /// Counts a certificate that could not be used.
    pub fn certificate_refused(&self) {
        self.certificate_loads.get_or_create(&ResultLabel { result: "refused" }).inc();
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
