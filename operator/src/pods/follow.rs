//! The watch of all pods.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crds::condition::ConditionType;
use crds::conditions::{find, is_true};
use crds::{PodIdentityBinding, Reason, in_effect};
use futures::{StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, ResourceExt};

use super::examine::service_account;
use super::model::{Expected, Key};
use super::wakes::Wakes;
use super::watched::WatchedPod;
use super::{PAGE, Pods, RUNNING};
use crate::cluster::{Cluster, Waker};

/// Watches all pods, and wakes bindings whose pods have changed, each at most once in `period`, until it is dropped.
pub async fn follow(pods: Pods, cluster: Cluster, waker: Waker<PodIdentityBinding>, period: Duration) {
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
    let wake = |key: &Key| waker.wake(cluster.on_service_account(&key.0, &key.1));
    let api: Api<WatchedPod> = Api::all(pods.client.clone());
    let config = process::watch::config().fields(RUNNING).page_size(PAGE);
    let events = watcher(api, config).backoff(process::watch::backoff());
    pin_mut!(events);
    let (mut due, mut shown) = (Wakes::new(period), BTreeSet::new());
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
                pods.store.begin();
                None
            }
            Some(Ok(Event::InitApply(pod))) => {
                let seen = pods.look_at(&pod);
                if let Some(Seen { key, name, is_missing: true, .. }) = &seen {
                    shown.insert((key.clone(), name.clone()));
                }
                seen.and_then(|seen| Some((seen.counts?, seen.key)))
            }
            Some(Ok(Event::InitDone)) => {
                pods.store.replace(&std::mem::take(&mut shown)).iter().for_each(wake);
                // What an earlier process has reported may have ended since, and passes before this did not know.
                for binding in cluster.bindings.state().iter().filter(|binding| !says_none(binding)) {
                    wake(&key(binding));
                }
                None
            }
            Some(Ok(Event::Apply(pod))) => pods.look_at(&pod).and_then(|seen| Some((seen.counts?, seen.key))),
            Some(Ok(Event::Delete(pod))) => account_of(&pod).and_then(|key| {
                let expected = pods.store.expected(&key)?;
                Some((pods.store.put(&key, &expected, &pod.name_any(), None)?, key))
            }),
            Some(Err(error)) => {
                let why = format!("pods cannot be watched: {error}");
                if pods.store.fail(why) {
                    tracing::warn!(%error, "pods cannot be watched: those without identity are not known");
                }
                None
            }
        };
        if let Some((counts, key)) = changed
            && due.changed(&key, counts, Instant::now())
        {
            wake(&key);
        }
    }
}

/// A pod of a `ServiceAccount` whose pods should have an identity.
struct Seen {
    key: Key,
    name: String,
    is_missing: bool,
    /// How many pods of it ran without the identity before, and do now, where that has changed.
    counts: Option<(usize, usize)>,
}

impl Pods {
    /// Takes in a pod; `None` where nothing is expected of it.
    fn look_at(&self, pod: &WatchedPod) -> Option<Seen> {
        let key = account_of(pod)?;
        let expected = self.store.expected(&key)?;
        let (name, missing) = (pod.name_any(), self.examine(pod, &expected));
        let is_missing = missing.is_some();
        let counts = self.store.put(&key, &expected, &name, missing);
        Some(Seen { key, name, is_missing, counts })
    }
}

/// Whether the status says that no pod is without identity.
fn says_none(binding: &PodIdentityBinding) -> bool {
    let Some(status) = &binding.status else { return false };
    is_true(&status.conditions, ConditionType::PodsInjected) && status.missing.is_none()
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
    let revoked =
        find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == Reason::Revoked);
    let role_arn = status.role_arn.as_deref().filter(|_| !revoked)?.into();
    let issuer = cluster.issuer(in_effect::issuer(binding))?;
    let audience = in_effect::audience(binding).unwrap_or(issuer.spec.audience()).into();
    Some((key(binding), Expected { role_arn, audience }))
}
