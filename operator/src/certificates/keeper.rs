//! What the reconcile of the certificates works with.

use std::sync::Arc;

use crds::names::WEBHOOK;
use kube::Client;

use crate::metrics::Metrics;
use crate::timings::Timings;

/// Client, namespace, periods and metrics.
pub struct Keeper {
    /// The API server.
    pub client: Client,
    /// The operator's own namespace, which is the webhook's, too.
    pub namespace: String,
    /// Waits and periods.
    pub timings: Timings,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Keeper {
    /// The name the API server calls the webhook by.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{WEBHOOK}.{}.svc", self.namespace)
    }
}
