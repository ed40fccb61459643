//! Updates the copies of a [`Lookup`] from watches, for as long as the process runs.

use std::sync::Arc;

use crds::{OidcIssuer, PodIdentityBinding};
use futures::{Stream, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};

use crate::cluster::live::BINDINGS_PAGE;
use crate::cluster::lookup::Lookup;
use crate::cluster::mirror::{Change, MirrorObject, MirrorState};
use crate::cluster::readable::{issuer_facts, readable};
use crate::cluster::service_account;
use crate::identity::facts::BindingFacts;

impl Lookup {
    /// Updates the copies; returns only if a watch ends, which it does not do by itself.
    pub async fn follow(&self) {
        // Kube's default: consistent lists in pages, so that a complete copy is never outdated. ServiceAccounts, which are
        // many and are looked up live where the copy lacks them, are listed in another way.
        let client = || self.client.clone();
        let service_accounts = service_account::watch(client(), process::watch::config());
        // One object that cannot be read must not hide all others.
        let bindings = watch(
            Api::<DeserializeGuard<PodIdentityBinding>>::all(client()),
            process::watch::config().page_size(BINDINGS_PAGE),
        );
        let issuers = watch(Api::<DeserializeGuard<OidcIssuer>>::all(client()), process::watch::config());
        tokio::select! {
            () = self.copy(
                "ServiceAccount",
                service_accounts,
                |change| self.service_accounts.apply(change),
                |account| Some(account.annotations(&self.annotation_prefix)),
                |object| Some(object.name.clone()),
            ) => {}
            () = self.copy(
                "PodIdentityBinding",
                bindings,
                |change| self.bindings.apply(change),
                |guard| Some(Arc::new(BindingFacts::from(readable("PodIdentityBinding", guard)?))),
                |object| Some(object.value.service_account.clone()),
            ) => {}
            () = self.copy(
                "OidcIssuer",
                issuers,
                |change| self.issuers.apply(change),
                |guard| Some(Arc::new(issuer_facts(guard))),
                |_| None,
            ) => {}
        }
    }

    /// Updates one copy. `keep` returns what is kept of an object; `service_account` names the `ServiceAccount` whose identity
    /// the object may change.
    async fn copy<K: Resource<DynamicType = ()>, T>(
        &self,
        kind: &'static str,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        apply: impl Fn(Change<T>) -> MirrorState,
        keep: impl Fn(&K) -> Option<T>,
        service_account: impl Fn(&MirrorObject<T>) -> Option<Box<str>>,
    ) {
        self.metrics.cache(kind, false, 0);
        let namespace = |object: &K| object.meta().namespace.as_deref().unwrap_or_default().into();
        let kept = |object: &K| {
            let value = keep(object)?;
            Some(MirrorObject { namespace: namespace(object), name: object.name_any().into(), value })
        };
        let mut events = std::pin::pin!(events.backoff(process::watch::backoff()));
        while let Some(event) = events.next().await {
            let mut changed = None;
            let change = match event {
                Ok(Event::Init) => Change::ListBegin,
                Ok(Event::InitDone) => Change::ListEnd,
                Ok(Event::InitApply(object)) => match kept(&object) {
                    Some(object) => Change::Listed(object),
                    None => continue,
                },
                Ok(Event::Apply(object)) => match kept(&object) {
                    Some(object) => {
                        changed = service_account(&object).map(|name| (object.namespace.clone(), name));
                        Change::Put(object)
                    }
                    None => continue,
                },
                Ok(Event::Delete(object)) => Change::Remove(namespace(&object), object.name_any().into()),
                Err(error) => {
                    tracing::warn!(kind, error = %error, "the watch failed and is retried");
                    continue;
                }
            };
            let listed = matches!(change, Change::ListEnd);
            let MirrorState { synced, objects } = apply(change);
            self.metrics.cache(kind, synced, objects);
            // After the copy is updated: a pod that is remembered before this is reported here, and one that is remembered
            // later is reported then, because the copy has the identity.
            if let Some((namespace, service_account)) = changed {
                self.report_early_pods(&namespace, &service_account);
            }
            if listed {
                self.report_all_early_pods();
                tracing::info!(kind, objects, "the copy is complete");
            }
        }
    }
}
