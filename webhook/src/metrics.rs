//! What the webhook counts. Labels come from closed sets, so that no cluster can make them explode.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

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
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Panicked => "panicked",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
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

/// All of the webhook's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reviews: Family<Review, Counter>,
    duration: Histogram,
    live_lookups: Family<ResultLabel, Counter>,
    synced: Family<Kind, Gauge>,
    objects: Family<Kind, Gauge>,
    certificate_loads: Family<ResultLabel, Counter>,
    certificate_not_after: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("podidentity_webhook");
        let reviews = Family::default();
        // From what a cached answer costs to the longest the API server waits.
        let duration = Histogram::new([
            0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 10.0,
        ]);
        let live_lookups = Family::default();
        let synced = Family::default();
        let objects = Family::default();
        let certificate_loads = Family::default();
        let certificate_not_after = Gauge::default();
        registry.register(
            "reviews",
            "Admission reviews by outcome, source of the identity and source of the facts",
            reviews.clone(),
        );
        registry.register(
            "review_duration_seconds",
            "Time from a review's headers to its answer",
            duration.clone(),
        );
        registry.register(
            "live_lookups",
            "Looks at the API server for ServiceAccounts that the cache does not have",
            live_lookups.clone(),
        );
        registry.register("cache_synced", "1 once the cache of that kind is complete", synced.clone());
        registry.register("cache_objects", "Objects in the cache of that kind", objects.clone());
        registry.register(
            "certificate_loads",
            "Serving certificates seen in the Secret, by whether they could be used",
            certificate_loads.clone(),
        );
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When the serving certificate ends",
            certificate_not_after.clone(),
        );
        Self {
            registry,
            reviews,
            duration,
            live_lookups,
            synced,
            objects,
            certificate_loads,
            certificate_not_after,
        }
    }
}

impl Metrics {
    /// Counts a review. `source` is where the identity, `lookup` where the facts came from; empty where neither.
    pub fn reviewed(&self, outcome: Outcome, source: &'static str, lookup: &'static str, took: Duration) {
        self.reviews.get_or_create(&Review { outcome: outcome.as_str(), source, lookup }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a look at the API server. `result` is `ok`, `error` or `timeout`.
    pub fn looked_up(&self, result: &'static str) {
        self.live_lookups.get_or_create(&ResultLabel { result }).inc();
    }

    /// Notes the state of a cache.
    pub fn cache(&self, kind: &'static str, synced: bool, objects: usize) {
        self.synced.get_or_create(&Kind { kind }).set(i64::from(synced));
        self.objects.get_or_create(&Kind { kind }).set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// Notes a usable certificate and its end, in seconds since 1970.
    pub fn certificate(&self, not_after: i64) {
        self.certificate_loads.get_or_create(&ResultLabel { result: "ok" }).inc();
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
