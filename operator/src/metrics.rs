//! The operator's metrics. Label values come from closed sets (and the names of issuers), so that their number is bounded.

use crds::KeyState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    aws_calls: Family<AwsCall, Counter>,
    aws_attempts: Family<AwsAttempt, Counter>,
    drift: Family<Drift, Counter>,
    verified: Family<Issuer, Gauge>,
    certificate: Family<Certificate, Gauge>,
    fence: Family<Issuer, Gauge>,
    keys: Family<IssuerKeys, Gauge>,
    leader: Gauge,
    orphans: Gauge,
    missing_pods: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AwsCall {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AwsAttempt {
    service: String,
    operation: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Drift {
    kind: &'static str,
    attribute: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Issuer {
    issuer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerKeys {
    issuer: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    certificate: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("podidentity_operator");
        let reconciles = Family::default();
        let aws_calls = Family::default();
        let aws_attempts = Family::default();
        let drift = Family::default();
        let verified = Family::default();
        let certificate = Family::default();
        let fence = Family::default();
        let keys = Family::default();
        let leader = Gauge::default();
        let orphans = Gauge::default();
        let missing_pods = Gauge::default();
        registry.register("reconciles", "Reconciles by kind and outcome", reconciles.clone());
        registry.register("aws_calls", "AWS calls by operation and outcome", aws_calls.clone());
        registry.register(
            "aws_attempts",
            "HTTP requests to AWS by service, operation and status; retries included",
            aws_attempts.clone(),
        );
        registry.register("drift_repairs", "Corrected drift by kind and attribute", drift.clone());
        registry.register(
            "last_verification_timestamp_seconds",
            "When a token of this cluster was last exchanged for credentials",
            verified.clone(),
        );
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When the webhook's certificates expire",
            certificate.clone(),
        );
        registry.register(
            "bucket_fence_ineffective",
            "1 where a session of the issuer could write to the bucket",
            fence.clone(),
        );
        registry.register("signing_keys", "Published signing keys by issuer and state", keys.clone());
        registry.register("leader", "1 while this replica is the leader", leader.clone());
        registry.register(
            "orphaned_roles",
            "Roles of this cluster whose PodIdentityBinding does not exist",
            orphans.clone(),
        );
        registry.register(
            "pods_without_identity",
            "Pods that run without the identity of their PodIdentityBinding",
            missing_pods.clone(),
        );
        Self {
            registry,
            reconciles,
            aws_calls,
            aws_attempts,
            drift,
            verified,
            certificate,
            fence,
            keys,
            leader,
            orphans,
            missing_pods,
        }
    }
}

impl Metrics {
    /// Counts an AWS call, its retries included. `outcome` is `ok` or an error class.
    pub fn aws_call(&self, operation: &'static str, outcome: &'static str) {
        self.aws_calls.get_or_create(&AwsCall { operation, outcome }).inc();
    }

    /// Counts one HTTP request of an AWS call. `status` is the HTTP status, 0 where there was no response.
    pub fn aws_attempt(&self, service: &str, operation: &str, status: u16) {
        let attempt = AwsAttempt {
            service: service.to_ascii_lowercase(),
            operation: operation.to_owned(),
            status: if status == 0 { "none".into() } else { status.to_string() },
        };
        self.aws_attempts.get_or_create(&attempt).inc();
    }

    /// Counts a reconcile. `outcome` is `ok` or an error class.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str) {
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
    }

    /// Counts an attribute that had drifted and was corrected.
    pub fn drift(&self, kind: &'static str, attribute: &'static str) {
        self.drift.get_or_create(&Drift { kind, attribute }).inc();
    }

    /// Sets the time of the last successful token exchange, in seconds since 1970.
    pub fn verified(&self, issuer: &str, at: i64) {
        self.verified.get_or_create(&Issuer { issuer: issuer.to_owned() }).set(at);
    }

    /// Removes the metrics of a deleted issuer.
    pub fn forget(&self, issuer: &str) {
        for state in [KeyState::Active, KeyState::Pending, KeyState::Retired] {
            self.keys.remove(&IssuerKeys { issuer: issuer.to_owned(), state: state_label(state) });
        }
        self.verified.remove(&Issuer { issuer: issuer.to_owned() });
        self.fence.remove(&Issuer { issuer: issuer.to_owned() });
    }

    /// Sets the time at which a certificate expires, in seconds since 1970. `certificate` is `ca` or `leaf`.
    pub fn certificate(&self, certificate: &'static str, not_after: i64) {
        self.certificate.get_or_create(&Certificate { certificate }).set(not_after);
    }

    /// Sets whether a session of an issuer could write to its bucket.
    pub fn fence(&self, issuer: &str, ineffective: bool) {
        self.fence.get_or_create(&Issuer { issuer: issuer.to_owned() }).set(i64::from(ineffective));
    }

    /// Sets the number of an issuer's published keys in a state.
    pub fn signing_keys(&self, issuer: &str, state: KeyState, count: usize) {
        let labels = IssuerKeys { issuer: issuer.to_owned(), state: state_label(state) };
        self.keys.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the number of roles without a binding.
    pub fn orphans(&self, count: usize) {
        self.orphans.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the number of pods that run without their identity.
    pub fn missing_pods(&self, count: usize) {
        self.missing_pods.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets whether this replica is the leader.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
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

const fn state_label(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Pending => "pending",
        KeyState::Retired => "retired",
    }
}
