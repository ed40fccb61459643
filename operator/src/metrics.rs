//! What the operator counts. Labels come from closed sets, so that no cluster can make them explode.

use std::fmt::Debug;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::aws::AwsError;

/// All of the operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    aws_calls: Family<AwsCall, Counter>,
    drift: Family<Drift, Counter>,
    verified: Family<Issuer, Gauge>,
    certificate: Family<Certificate, Gauge>,
    leader: Gauge,
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
struct Drift {
    kind: &'static str,
    attribute: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Issuer {
    issuer: String,
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
        let drift = Family::default();
        let verified = Family::default();
        let certificate = Family::default();
        let leader = Gauge::default();
        registry.register("reconciles", "Reconciles by kind and outcome", reconciles.clone());
        registry.register("aws_calls", "AWS calls by operation and outcome", aws_calls.clone());
        registry.register("drift_repairs", "Drift put back, by kind and attribute", drift.clone());
        registry.register(
            "last_verification_timestamp_seconds",
            "When a real token of this cluster was last exchanged for credentials",
            verified.clone(),
        );
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When the webhook's certificates end",
            certificate.clone(),
        );
        registry.register("leader", "1 while this replica leads", leader.clone());
        Self { registry, reconciles, aws_calls, drift, verified, certificate, leader }
    }
}

impl Metrics {
    /// Counts an AWS call and classifies its failure.
    pub fn aws<T, E, R>(
        &self,
        operation: &'static str,
        resource: &str,
        answer: Result<T, SdkError<E, R>>,
    ) -> Result<T, AwsError>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        R: Debug + 'static,
    {
        let answer = answer.map_err(|error| AwsError::of(operation, resource, &error));
        let outcome = answer.as_ref().map_or_else(|error| error.class.label(), |_| "ok");
        self.aws_calls.get_or_create(&AwsCall { operation, outcome }).inc();
        if let Err(error) = &answer {
            tracing::debug!(
                operation,
                resource,
                outcome,
                code = error.code,
                detail = error.detail,
                "AWS call failed"
            );
        }
        answer
    }

    /// Counts a reconcile. `outcome` is `ok` or an error class.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str) {
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
    }

    /// Counts a repaired attribute.
    pub fn drift(&self, kind: &'static str, attribute: &'static str) {
        self.drift.get_or_create(&Drift { kind, attribute }).inc();
    }

    /// Notes a successful token exchange, in seconds since 1970.
    pub fn verified(&self, issuer: &str, at: i64) {
        self.verified.get_or_create(&Issuer { issuer: issuer.to_owned() }).set(at);
    }

    /// Forgets an issuer that is gone.
    pub fn forget(&self, issuer: &str) {
        self.verified.remove(&Issuer { issuer: issuer.to_owned() });
    }

    /// Notes the end of a certificate's life, in seconds since 1970.
    pub fn certificate(&self, certificate: &'static str, not_after: i64) {
        self.certificate.get_or_create(&Certificate { certificate }).set(not_after);
    }

    /// Notes whether this replica leads.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
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
