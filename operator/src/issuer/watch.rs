//! What wakes an issuer's reconcile: itself, its period, and the end of a binding.

use std::sync::Arc;

use crds::OidcIssuer;
use crds::names::DEFAULT_ISSUER;
use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, controller::Action};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::reconcile::Error;
use crate::watch;

/// The controller's machinery; `ends` tells of bindings that are gone, since an issuer's deletion waits for the last.
#[must_use]
pub fn controller(client: &Client, ends: UnboundedReceiver<()>) -> Controller<OidcIssuer> {
    Controller::new(Api::all(client.clone()), process::watch::config())
        .reconcile_on(ends.map(|()| ObjectRef::new(DEFAULT_ISSUER)))
        .trigger_backoff(process::watch::backoff())
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
