//! Runs the controller of a kind until the operator stops.

use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Error};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, reconcile};
use crate::kind::Kind;

/// Runs until `stop`, then lets running passes end.
pub async fn run<K: Kind>(
    controller: Controller<K::Object>,
    driver: Arc<Driver<K>>,
    stop: CancellationToken,
) {
    controller
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile::<K>, never_fails::<K>, driver)
        .for_each(|result| async {
            match result {
                // An object that was deleted meanwhile needs no log line.
                Ok(_) | Err(Error::ObjectNotFound(_) | Error::ReconcilerFailed(..)) => {}
                Err(error) => {
                    tracing::warn!(kind = K::NAME, %error, "the watch failed and is started again");
                }
            }
        })
        .await;
}

#[allow(
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that the controller requires"
)]
fn never_fails<K: Kind>(_: Arc<K::Object>, failure: &Infallible, _: Arc<Driver<K>>) -> Action {
    match *failure {}
}
