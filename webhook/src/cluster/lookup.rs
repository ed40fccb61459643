//! The facts about a `ServiceAccount`: from watched copies, and by a live lookup where the copies do not have it.
//!
//! The API server admits a pod only if its `ServiceAccount` exists, so one that the copy lacks was created a moment ago: a
//! live lookup finds it. So it does while the copies are not complete. A `ServiceAccount` that the copy has, without a
//! binding, is a valid answer; only where a pod requires an identity does a live lookup confirm it. Where the facts are not
//! known there is no answer: never "no identity".

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;

use crate::cluster::live::{LiveLookups, LookupError};
use crate::cluster::mirror::{BindingMirror, IssuerMirror, Mirror};
use crate::cluster::recent::{PodWithoutIdentity, RecentPods};
use crate::cluster::sources::Sources;
use crate::identity::facts::{Annotations, IdentityState, identity_state};
use crate::identity::model::ServiceAccountFacts;
use crate::metrics::Metrics;
use crate::model::{FactsOrigin, MissingIdentityReason};

/// The copies, and live lookups.
pub struct Lookup {
    pub(super) service_accounts: Mirror<Option<Arc<Annotations>>>,
    pub(super) bindings: BindingMirror,
    pub(super) issuers: IssuerMirror,
    /// The ConfigMap and the container-credentials file.
    pub sources: Arc<Sources>,
    recent: RecentPods,
    live: LiveLookups,
    pub(super) client: Client,
    /// Prefix of the annotations that count.
    pub(super) annotation_prefix: Arc<str>,
    pub(super) metrics: Arc<Metrics>,
}

impl Lookup {
    /// Empty copies. `annotation_prefix` is without the slash; `timeout` limits each live lookup.
    #[must_use]
    pub fn new(
        client: Client,
        annotation_prefix: &str,
        timeout: Duration,
        sources: Arc<Sources>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let annotation_prefix: Arc<str> = annotation_prefix.into();
        let live =
            LiveLookups::new(client.clone(), Arc::clone(&annotation_prefix), timeout, Arc::clone(&metrics));
        Self {
            service_accounts: Mirror::default(),
            bindings: BindingMirror::default(),
            issuers: IssuerMirror::default(),
            sources,
            recent: RecentPods::default(),
            live,
            client,
            annotation_prefix,
            metrics,
        }
    }

    /// Whether all copies have been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.service_accounts.is_synced()
            && self.bindings.is_synced()
            && self.issuers.complete().is_some()
            && self.sources.is_synced()
    }

    /// What is known about a `ServiceAccount`. With `confirm`, that it has no binding is known only by a live lookup. The
    /// capacity for lookups is shared between the addresses of callers.
    pub async fn facts(
        &self,
        namespace: &str,
        service_account: &str,
        confirm: bool,
        peer: IpAddr,
    ) -> Result<(ServiceAccountFacts, FactsOrigin), LookupError> {
        let issuers = self.issuers.complete();
        let cached = (self.service_accounts.is_synced() && self.bindings.is_synced() && issuers.is_some())
            .then(|| self.service_accounts.get(namespace, service_account))
            .flatten()
            .map(|annotations| (annotations, self.bindings.of(namespace, service_account)))
            .filter(|(annotations, bindings)| {
                let role = annotations.as_ref().and_then(|annotations| annotations.role());
                !confirm || role.is_some() || !bindings.is_empty()
            });
        let (annotations, bindings, issuers, origin) = match (cached, issuers) {
            (Some((annotations, bindings)), Some(issuers)) => {
                (annotations, bindings, issuers, FactsOrigin::Cache)
            }
            (_, issuers) => {
                let live = self.live.get(namespace, service_account, issuers.is_none(), peer).await?;
                // The copy may have become complete meanwhile, and a lookup that was joined then has read no issuers.
                let issuers = self.issuers.complete().unwrap_or(live.issuers);
                (live.annotations, live.bindings, issuers, FactsOrigin::Live)
            }
        };
        let facts = ServiceAccountFacts {
            annotations,
            bindings,
            issuers,
            mapped: self.sources.mapped(namespace, service_account),
            container_credentials: self.sources.has_container_credentials(namespace, service_account),
        };
        // A ServiceAccount without an identity so far may have one in a ConfigMap that has not been read.
        let state = identity_state(facts.annotations.as_deref(), &facts.bindings);
        if state != IdentityState::Present && !facts.container_credentials && !self.sources.is_synced() {
            return Err(LookupError::NotSynced);
        }
        Ok((facts, origin))
    }

    /// Remembers a pod that was admitted without an identity, and reports it at once if the copies have one meanwhile.
    pub fn remember(&self, pod: PodWithoutIdentity) {
        let (namespace, service_account) = (pod.namespace.clone(), pod.service_account.clone());
        self.recent.remember(pod);
        self.report_early_pods(&namespace, &service_account);
    }

    /// Counts and logs the pods of a `ServiceAccount` that were admitted without an identity a moment ago, if the copies have
    /// an identity for it now.
    pub(super) fn report_early_pods(&self, namespace: &str, service_account: &str) {
        let annotations = self.service_accounts.get(namespace, service_account).flatten();
        let bindings = self.bindings.of(namespace, service_account);
        if identity_state(annotations.as_deref(), &bindings) == IdentityState::Absent {
            return;
        }
        for PodWithoutIdentity { pod, admitted, .. } in
            self.recent.take(namespace, service_account, Instant::now())
        {
            self.metrics.without_identity(MissingIdentityReason::BeforeIdentity);
            tracing::warn!(
                namespace,
                service_account,
                pod = &*pod,
                milliseconds = u64::try_from(admitted.elapsed().as_millis()).unwrap_or(u64::MAX),
                "a pod was admitted without its identity, this long before the identity was known: restart it"
            );
        }
    }

    /// The same for all pods that are remembered.
    pub(super) fn report_all_early_pods(&self) {
        for (namespace, service_account) in self.recent.service_accounts() {
            self.report_early_pods(&namespace, &service_account);
        }
    }
}
