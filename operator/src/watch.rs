//! Runs the controller of a kind until the operator stops.

use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config, Error};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, reconcile};
use crate::kind::Kind;

/// Reconciles at once: more than there are turns, since those without one only end, and not thousands, since the controller keeps the space
/// that they need.
const AT_ONCE: u16 = 64;

/// Runs until `stop`, then lets running passes end.
pub async fn run<K: Kind>(
    controller: Controller<K::Object>,
    driver: Arc<Driver<K>>,
    stop: CancellationToken,
) {
    controller
        .with_config(Config::default().concurrency(AT_ONCE))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile::<K>, never_fails::<K>, driver.clone())
        .for_each(|result| async {
            match result {
                Ok(_) => {}
                // It was deleted meanwhile.
                Err(Error::ObjectNotFound(object)) => {
                    driver.not_found(object.namespace.as_deref(), &object.name);
                }
                // Neither a pass nor a watch is expected to fail here.
                Err(error) => tracing::error!(kind = K::NAME, %error, "the controller failed"),
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
