//! Client, settings and metrics of the certificates' reconcile.

use std::sync::Arc;

use crds::names::WEBHOOK;
use kube::Client;

use crate::metrics::Metrics;
use crate::timings::Timings;

/// What every step of the certificates' reconcile uses.
pub struct CertificateContext {
    /// The API server.
    pub client: Client,
    /// The namespace of operator and webhook.
    pub namespace: String,
    /// Timeouts and periods.
    pub timings: Timings,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl CertificateContext {
    /// The webhook's host name, which the API server verifies.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{WEBHOOK}.{}.svc", self.namespace)
    }
}
