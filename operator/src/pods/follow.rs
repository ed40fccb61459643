//! The watch of all pods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crds::condition::{ConditionType, find};
use crds::{PodIdentityBinding, Reason};
use futures::{StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, ResourceExt};

use super::examine::service_account;
use super::model::{Expected, Key, Missing};
use super::wakes::Wakes;
use super::watched::WatchedPod;
use super::{PAGE, Pods, RUNNING};
use crate::cluster::{Cluster, Waker};
use crate::metrics::Metrics;

/// Watches all pods, and wakes bindings whose pods have changed, until it is dropped.
pub async fn follow(pods: Pods, cluster: Cluster, waker: Waker, metrics: Arc<Metrics>) {
    if !pods.settings.watch {
        return std::future::pending().await;
    }
    cluster.issuers_synced().await;
    cluster.bindings_synced().await;
    for binding in cluster.bindings.state() {
        if let Some((key, expected)) = expected(&binding, &cluster) {
            pods.store.expect(key, expected);
        }
    }
    let wake = |key: &Key| waker.bindings(cluster.on_service_account(&key.0, &key.1));
    let api: Api<WatchedPod> = Api::all(pods.client.clone());
    let config = process::watch::config().fields(RUNNING).page_size(PAGE);
    let events = watcher(api, config).backoff(process::watch::backoff());
    pin_mut!(events);
    let (mut due, mut shown) = (Wakes::default(), BTreeSet::new());
    loop {
        let next = async {
            match due.next() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = events.next() => event,
            () = next => {
                due.take(Instant::now()).iter().for_each(wake);
                continue;
            }
        };
        let changed = match event {
            None => return,
            Some(Ok(Event::Init)) => {
                shown.clear();
                None
            }
            Some(Ok(Event::InitApply(pod))) => pods.look_at(&pod).and_then(|(key, missing)| {
                let name = pod.name_any();
                if missing.is_some() {
                    shown.insert((key.clone(), name.clone()));
                }
                Some((pods.store.put(&key, &name, missing)?, key))
            }),
            Some(Ok(Event::InitDone)) => {
                pods.store.replace(&std::mem::take(&mut shown)).iter().for_each(wake);
                // What an earlier process has reported may have ended since.
                let reported = |binding: &PodIdentityBinding| {
                    binding.status.as_ref().is_some_and(|status| status.missing.is_some())
                };
                for binding in cluster.bindings.state().iter().filter(|binding| reported(binding)) {
                    wake(&key(binding));
                }
                None
            }
            Some(Ok(Event::Apply(pod))) => pods
                .look_at(&pod)
                .and_then(|(key, missing)| Some((pods.store.put(&key, &pod.name_any(), missing)?, key))),
            Some(Ok(Event::Delete(pod))) => {
                account_of(&pod).and_then(|key| Some((pods.store.put(&key, &pod.name_any(), None)?, key)))
            }
            Some(Err(error)) => {
                let why = format!("pods cannot be watched: {error}");
                if pods.store.fail(why) {
                    tracing::warn!(%error, "pods cannot be watched: those without identity are not known");
                }
                None
            }
        };
        if let Some((counts, key)) = changed {
            metrics.missing_pods(pods.store.count());
            if due.changed(&key, counts, Instant::now()) {
                wake(&key);
            }
        }
    }
}

impl Pods {
    /// The pod's `ServiceAccount`, if anything is expected of its pods, and whether the pod runs without that.
    fn look_at(&self, pod: &WatchedPod) -> Option<(Key, Option<Missing>)> {
        let key = account_of(pod)?;
        let expected = self.store.expected(&key)?;
        let missing = self.examine(pod, &expected);
        Some((key, missing))
    }
}

fn account_of(pod: &WatchedPod) -> Option<Key> {
    Some((pod.namespace()?, service_account(pod.spec.get())?))
}

fn key(binding: &PodIdentityBinding) -> Key {
    (binding.namespace().unwrap_or_default(), binding.spec.service_account_name.clone())
}

/// What an earlier process has reported of a binding; the next pass compares it with what is expected now.
fn expected(binding: &PodIdentityBinding, cluster: &Cluster) -> Option<(Key, Expected)> {
    let status = binding.status.as_ref().filter(|_| binding.metadata.deletion_timestamp.is_none())?;
    let revoked = find(&status.conditions, ConditionType::Ready)
        .is_some_and(|ready| ready.reason == Reason::Revoked.as_str());
    let role_arn = status.role_arn.as_deref().filter(|_| !revoked)?.into();
    let issuer = cluster.issuer(binding.spec.issuer_name())?;
    let audience = binding.spec.audience.as_deref().unwrap_or(issuer.spec.audience()).into();
    Some((key(binding), Expected { role_arn, audience }))
}
