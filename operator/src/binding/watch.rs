//! What wakes a binding's pass: itself, its period, its issuer, its `ServiceAccount`, and the end of another binding on it.

use crds::PodIdentityBinding;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::core::PartialObjectMeta;
use kube::runtime::{Controller, WatchStreamExt};
use kube::{Api, Client, ResourceExt};

use crate::cluster::{Cluster, Feed, retried_watch};

/// The controller of bindings.
#[must_use]
pub fn controller(
    client: &Client,
    cluster: &Cluster,
    feed: Feed<PodIdentityBinding>,
) -> Controller<PodIdentityBinding> {
    let service_accounts: Api<PartialObjectMeta<ServiceAccount>> = Api::all(client.clone());
    let index = cluster.clone();
    Controller::for_stream(feed.changes, cluster.bindings.clone())
        .watches_stream(retried_watch(service_accounts).touched_objects(), move |service_account| {
            let namespace = service_account.metadata.namespace.as_deref().unwrap_or_default();
            index.on_service_account(namespace, &service_account.name_any())
        })
        .reconcile_on(feed.woken)
}
