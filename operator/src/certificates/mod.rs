//! The webhook's certificates, managed by the leader: observe → decide (pure) → act.
//!
//! The CA's key is in one Secret that only the operator may read; leaf certificate and key are in a second Secret
//! (`kubernetes.io/tls`) that the webhook watches. A CA signs only once the live webhook configuration trusts it. The
//! configuration belongs to the chart: only its `caBundle` is written here, and it is never created here, because deleting it
//! is the emergency stop.

mod act;
mod certified_key;
mod context;
mod decide;
mod error;
mod model;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use crds::names::{CA_SECRET, TLS_SECRET, WEBHOOK};
use futures::StreamExt;
use futures::stream::select_all;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use self::act::act;
use self::context::CertificateContext;
use self::decide::{PROPAGATION_DELAY, decide};
use self::error::CertificateError;
use self::observe::observe;
use crate::metrics::Metrics;
use crate::timings::Timings;

/// Upper bound of the timeout of one [`converge`]: it is a few small calls, and a call without a response must not delay the
/// renewal of a deleted certificate by the whole `reconcile_timeout`.
const CONVERGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Creates and renews the certificates until it is dropped: at the start, after every change of the two Secrets and the
/// webhook configuration, and every `certificate_check`.
pub async fn run(client: Client, namespace: String, timings: Timings, metrics: Arc<Metrics>) {
    let context = CertificateContext { client, namespace, timings, metrics };
    let mut changes = changes(&context);
    loop {
        let limit = context.timings.reconcile_timeout.min(CONVERGE_TIMEOUT);
        let converged = tokio::time::timeout(limit, converge(&context)).await;
        let wait = match converged.unwrap_or(Err(CertificateError::NotConverged)) {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "the webhook's certificates are not as specified yet; retrying");
                tokio::time::sleep(context.timings.lease_retry).await;
                continue;
            }
        };
        tokio::select! {
            _ = changes.next() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Takes steps until none is left. Returns when to check again.
async fn converge(context: &CertificateContext) -> Result<Duration, CertificateError> {
    // CA, bundle and leaf are three steps. The limit prevents an endless loop if another program reverts them.
    const MAX_STEPS: usize = 6;
    for _ in 0..MAX_STEPS {
        let observed = observe(context).await?;
        if let Some(ca) = &observed.ca {
            context.metrics.certificate("ca", ca.not_after);
        }
        if let Some((leaf, _)) = &observed.leaf {
            context.metrics.certificate("leaf", leaf.not_after);
        }
        if observed.managed_by_other {
            tracing::info!(
                "Secret {TLS_SECRET} is managed by another program: neither it nor caBundle is written"
            );
        }
        let Some(step) = decide(&observed, Timestamp::now().as_second()) else {
            let signer = observed.leaf.as_ref().map(|(_, signer)| signer);
            let complete =
                observed.managed_by_other || signer == observed.ca.as_ref().map(|ca| &ca.certificate);
            return Ok(if complete { context.timings.certificate_check } else { PROPAGATION_DELAY });
        };
        tracing::info!(step = step.name(), "webhook certificates");
        act(context, step, &observed).await?;
    }
    Err(CertificateError::NotConverged)
}

/// One item for every change of the three objects. It carries nothing: all three are read after each change.
fn changes(context: &CertificateContext) -> impl futures::Stream<Item = ()> + Unpin + use<> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(context.client.clone(), &context.namespace);
    let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> =
        Api::all(context.client.clone());
    let named = |name: &str| process::watch::config().fields(&format!("metadata.name={name}"));
    select_all([
        watcher(secrets.clone(), named(CA_SECRET)).backoff(process::watch::backoff()).map(|_| ()).boxed(),
        watcher(secrets, named(TLS_SECRET)).backoff(process::watch::backoff()).map(|_| ()).boxed(),
        watcher(configurations, named(WEBHOOK)).backoff(process::watch::backoff()).map(|_| ()).boxed(),
    ])
}
