//! What every pass is handed: clients, the index over the cluster, periods, metrics and events.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;

use crate::api_servers::endpoints::Endpoints;
use crate::aws::accounts::Accounts;
use crate::aws::inventory::Listings;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::cluster::answers::Answers;
use crate::events::Events;
use crate::grant::Losses;
use crate::metrics::Metrics;
use crate::pods::Pods;
use crate::timings::Timings;

/// Shared by all controllers of a process.
pub struct Context {
    /// The API server.
    pub client: kube::Client,
    /// Every API server by itself.
    pub endpoints: Endpoints,
    /// AWS.
    pub accounts: Accounts,
    /// All issuers and bindings.
    pub cluster: Cluster,
    /// How many roles of an issuer have lost their grant, by the API server's own answer.
    pub losses: Answers<Losses>,
    /// The roles in AWS, as the last sweep has listed them.
    pub listings: Listings,
    /// Pods that run without their identity.
    pub pods: Pods,
    /// Waits and periods.
    pub timings: Timings,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Events.
    pub events: Events,
    /// The operator's own namespace.
    pub namespace: String,
    /// When this process began to lead.
    pub started: Instant,
}

impl Context {
    /// This moment.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock { instant: Instant::now(), wall: Timestamp::now(), started: self.started }
    }
}
