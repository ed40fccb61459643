//! The webhook's certificates, kept by the leader: observe → decide (pure) → act.
//!
//! The CA's key stays in one Secret that only the operator reads; leaf and key go to a second `kubernetes.io/tls` Secret
//! which the webhook watches. A CA signs only once the live webhook configuration trusts it. The configuration is the
//! chart's: only its `caBundle` is written here, and it is never made again (deleting it is the emergency stop).

mod act;
mod decide;
mod error;
mod keeper;
mod model;
mod observe;
mod pair;

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
use self::decide::{HEARD_AFTER, decide};
use self::error::CertificateError;
use self::keeper::Keeper;
use self::observe::observe;
use crate::metrics::Metrics;
use crate::timings::Timings;

/// A round is a few small calls. One that hangs must not keep a deleted certificate away for a minute.
const ROUND: Duration = Duration::from_secs(15);

/// Keeps the certificates as wanted for as long as it runs: at once, on every change of the three objects, and at times.
pub async fn keep(client: Client, namespace: String, timings: Timings, metrics: Arc<Metrics>) {
    let keeper = Keeper { client, namespace, timings, metrics };
    let mut woken = changes(&keeper);
    loop {
        let limit = keeper.timings.reconcile_timeout.min(ROUND);
        let converged = tokio::time::timeout(limit, converge(&keeper)).await;
        let wait = match converged.unwrap_or(Err(CertificateError::NotConverged)) {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "the webhook's certificates are not as wanted yet; tried again");
                tokio::time::sleep(keeper.timings.lease_retry).await;
                continue;
            }
        };
        tokio::select! {
            _ = woken.next() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Takes steps until there is none; returns when to look again.
async fn converge(keeper: &Keeper) -> Result<Duration, CertificateError> {
    // CA, bundle and leaf are three; something that undoes them as fast must not keep us busy.
    const MOST_STEPS: usize = 6;
    for _ in 0..MOST_STEPS {
        let observed = observe(keeper).await?;
        if let Some(ca) = &observed.ca {
            keeper.metrics.certificate("ca", ca.not_after);
        }
        if let Some((leaf, _)) = &observed.leaf {
            keeper.metrics.certificate("leaf", leaf.not_after);
        }
        if observed.foreign {
            tracing::info!(
                "Secret {TLS_SECRET} is kept by somebody else: neither it nor caBundle is written"
            );
        }
        let Some(step) = decide(&observed, Timestamp::now().as_second()) else {
            let signer = observed.leaf.as_ref().map(|(_, signer)| signer);
            let signs = observed.foreign || signer == observed.ca.as_ref().map(|ca| &ca.certificate);
            return Ok(if signs { keeper.timings.certificate_check } else { HEARD_AFTER });
        };
        tracing::info!(step = step.name(), "webhook certificates");
        act(keeper, step, &observed).await?;
    }
    Err(CertificateError::NotConverged)
}

/// One item for every change of the three objects; what changed is read anew anyway.
fn changes(keeper: &Keeper) -> impl futures::Stream<Item = ()> + Unpin + use<> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(keeper.client.clone(), &keeper.namespace);
    let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> =
        Api::all(keeper.client.clone());
    let named = |name: &str| process::watch::config().fields(&format!("metadata.name={name}"));
    select_all([
        watcher(secrets.clone(), named(CA_SECRET)).backoff(process::watch::backoff()).map(|_| ()).boxed(),
        watcher(secrets, named(TLS_SECRET)).backoff(process::watch::backoff()).map(|_| ()).boxed(),
        watcher(configurations, named(WEBHOOK)).backoff(process::watch::backoff()).map(|_| ()).boxed(),
    ])
}
