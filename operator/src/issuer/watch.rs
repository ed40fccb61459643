//! What wakes an issuer's pass: itself, its period, and the end of a binding that uses it.

use crds::OidcIssuer;
use kube::runtime::Controller;

use crate::cluster::{Cluster, Feed};

/// The controller of issuers.
#[must_use]
pub fn controller(cluster: &Cluster, feed: Feed<OidcIssuer>) -> Controller<OidcIssuer> {
    Controller::for_stream(feed.changes, cluster.issuers.clone()).reconcile_on(feed.woken)
}
