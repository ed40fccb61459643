//! What wakes an issuer's reconcile: itself, its period, and the coming and going of bindings.

use std::sync::Arc;

use crds::names::DEFAULT_ISSUER;
use crds::{OidcIssuer, PodIdentityBinding};
use futures::StreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, controller::Action};
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::reconcile::Error;
use crate::watch;

/// The controller's machinery; its store is needed before it runs.
#[must_use]
pub fn controller(client: &Client) -> Controller<OidcIssuer> {
    let bindings: Api<PodIdentityBinding> = Api::all(client.clone());
    Controller::new(Api::all(client.clone()), watch::config())
        // Only a binding on its way out matters here: an issuer's deletion may wait for it.
        .watches(bindings, watch::config(), |binding| {
            binding.meta().deletion_timestamp.is_some().then(|| ObjectRef::new(DEFAULT_ISSUER))
        })
        .trigger_backoff(watch::backoff())
        .with_config(kube::runtime::controller::Config::default().concurrency(4))
}

/// Runs until `stop`, then lets running reconciles end.
pub async fn run(controller: Controller<OidcIssuer>, context: Arc<Context>, stop: CancellationToken) {
    controller
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(super::reconcile, on_error, context)
        .for_each(|result| async {
            if let Err(error) = result {
                watch::log("OidcIssuer", &error);
            }
        })
        .await;
}

#[allow(clippy::needless_pass_by_value, reason = "the shape the controller asks for")]
fn on_error(object: Arc<OidcIssuer>, error: &Error, context: Arc<Context>) -> Action {
    tracing::warn!(issuer = object.name_any(), %error, "reconcile failed");
    context.metrics.reconciled("OidcIssuer", "kubernetes");
    Action::requeue(context.backoff.failed(&object.name_any()))
}
