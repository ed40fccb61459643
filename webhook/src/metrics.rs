//! The webhook's metrics. Label values come from closed sets, so the number of series is bounded whatever a cluster holds.

use std::time::Duration;

use crds::pod::problem::PodProblem;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::model::{FactsOrigin, MissingIdentityReason, Outcome, WebhookEntry};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    entry: &'static str,
    outcome: &'static str,
    source: &'static str,
    lookup: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// All of the webhook's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reviews: Family<ReviewLabels, Counter>,
    duration: Histogram,
    without_identity: Family<ReasonLabel, Counter>,
    pod_problems: Family<ReasonLabel, Counter>,
    live_lookups: Family<ResultLabel, Counter>,
    synced: Family<KindLabel, Gauge>,
    objects: Family<KindLabel, Gauge>,
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
            // From the time of an answer from the cache to more than the API server's timeout.
            duration: Histogram::new([
                0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 10.0,
            ]),
            without_identity: Family::default(),
            pod_problems: Family::default(),
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
            "Pods that should have an identity, or might, and were admitted without one",
            self.without_identity.clone(),
        );
        registry.register(
            "pod_problems",
            "What keeps containers of reviewed pods from using their identity, and annotations without effect",
            self.pod_problems.clone(),
        );
        registry.register(
            "live_lookups",
            "Live lookups at the API server of ServiceAccounts that the cache does not have",
            self.live_lookups.clone(),
        );
        registry.register("cache_synced", "1 once the cache of that kind is complete", self.synced.clone());
        registry.register("cache_objects", "Objects in the cache of that kind", self.objects.clone());
        registry.register(
            "certificate_loads",
            "Serving certificates read, by whether they are usable",
            self.certificate_loads.clone(),
        );
        registry.register(
            "certificate_not_before_timestamp_seconds",
            "Start of the serving certificate's validity",
            self.certificate_not_before.clone(),
        );
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "End of the serving certificate's validity",
            self.certificate_not_after.clone(),
        );
        registry.register(
            "ca_bundle_trusts_certificate",
            "1 while the live webhook configuration trusts the serving certificate",
            self.ca_bundle_trusts.clone(),
        );
        registry.register(
            "config_map_entries",
            "Entries of the ConfigMap with roles, by whether they are usable",
            self.mapping_entries.clone(),
        );
        registry.register(
            "container_credentials_identities",
            "ServiceAccounts in container-credentials mode",
            self.container_credentials.clone(),
        );
        registry.register(
            "container_credentials_refused",
            "Versions of the container-credentials file that are not usable",
            self.container_credentials_refused.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_evicted",
            "Connections closed at the limit in favour of newer ones",
            self.connections_evicted.clone(),
        );
        self.registry = registry;
        self.initialize();
        self
    }

    /// Series that alerts use start at 0: in a series that starts at 1 Prometheus sees no increase.
    fn initialize(&self) {
        for reason in MissingIdentityReason::ALL {
            self.without_identity.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc_by(0);
        }
        for reason in PodProblem::REASONS {
            self.pod_problems.get_or_create(&ReasonLabel { reason }).inc_by(0);
        }
        for entry in WebhookEntry::ALL.map(WebhookEntry::as_str) {
            let failures = [
                (Outcome::Malformed, ""),
                (Outcome::Panicked, ""),
                (Outcome::Unavailable, FactsOrigin::Live.as_str()),
            ];
            for (outcome, lookup) in failures {
                let outcome = outcome.as_str();
                self.reviews.get_or_create(&ReviewLabels { entry, outcome, source: "", lookup }).inc_by(0);
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

    /// Counts a review. `source` names where the identity comes from, `lookup` where the facts come from; each is empty where
    /// there is none.
    pub fn reviewed(
        &self,
        entry: WebhookEntry,
        outcome: Outcome,
        source: &'static str,
        lookup: &'static str,
        took: Duration,
    ) {
        let entry = entry.as_str();
        self.reviews.get_or_create(&ReviewLabels { entry, outcome: outcome.as_str(), source, lookup }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a pod that was admitted without its identity.
    pub fn without_identity(&self, reason: MissingIdentityReason) {
        self.without_identity.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Counts a problem of a pod.
    pub fn pod_problem(&self, reason: &'static str) {
        self.pod_problems.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a live lookup. `result` is `ok`, `busy`, `error` or `timeout`.
    pub fn looked_up(&self, result: &'static str) {
        self.live_lookups.get_or_create(&ResultLabel { result }).inc();
    }

    /// Sets the state of a cache.
    pub fn cache(&self, kind: &'static str, synced: bool, objects: usize) {
        self.synced.get_or_create(&KindLabel { kind }).set(i64::from(synced));
        self.objects.get_or_create(&KindLabel { kind }).set(number(objects));
    }

    /// Sets the number of usable and of unusable entries of the ConfigMap.
    pub fn mapping(&self, entries: usize, problems: usize) {
        for (result, count) in [("ok", entries), ("refused", problems)] {
            self.mapping_entries.get_or_create(&ResultLabel { result }).set(number(count));
        }
    }

    /// Sets how many `ServiceAccount`s are in container-credentials mode.
    pub fn container_credentials(&self, identities: usize) {
        self.container_credentials.set(number(identities));
    }

    /// Counts a version of the container-credentials file that is not usable.
    pub fn container_credentials_refused(&self) {
        self.container_credentials_refused.inc();
    }

    /// Sets how many connections are open, and how many were evicted so far.
    pub fn connections(&self, open: usize, evicted: u64) {
        self.connections.set(number(open));
        let counted = self.connections_evicted.get();
        self.connections_evicted.inc_by(evicted.saturating_sub(counted));
    }

    /// Sets whether the live webhook configuration trusts the certificate.
    pub fn trusted(&self, trusted: bool) {
        self.ca_bundle_trusts.set(i64::from(trusted));
    }

    /// Counts a usable certificate and sets its validity, in seconds since 1970.
    pub fn certificate(&self, not_before: i64, not_after: i64) {
        self.certificate_loads.get_or_create(&ResultLabel { result: "ok" }).inc();
        self.certificate_not_before.set(not_before);
        self.certificate_not_after.set(not_after);
    }

    /// Counts a certificate that is not usable.
    pub fn certificate_refused(&self) {
        self.certificate_loads.get_or_create(&ResultLabel { result: "refused" }).inc();
    }

    /// All metrics in the text format that Prometheus scrapes.
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
