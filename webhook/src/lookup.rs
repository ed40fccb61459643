//! What the cluster says about a `ServiceAccount`: from watched copies, and live where the copy has never heard of it.
//!
//! The API server admits a pod only if its `ServiceAccount` exists, so one that the copy lacks was made a moment ago:
//! one bounded look at the API server, shared by all who ask at the same time, settles it. A `ServiceAccount` that the
//! copy has, without a binding, is an answer. Where the answer is not known there is none: never "no identity".

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::{OidcIssuer, PodIdentityBinding, names};
use futures::future::{BoxFuture, FutureExt, Shared};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use thiserror::Error;

use crate::metrics::Metrics;
use crate::mirror::{Entry, Mirror};

/// Annotations of a `ServiceAccount`, only those with our prefix.
pub type Annotations = BTreeMap<String, String>;

/// How long the API server keeps a watch open: a copy is never older than this without anybody knowing.
const WATCH_SECONDS: u32 = 45;

/// What is known about a `ServiceAccount`.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its annotations with our prefix.
    pub annotations: Arc<Annotations>,
    /// The bindings that name it.
    pub bindings: Vec<Arc<PodIdentityBinding>>,
    /// The issuer bindings use.
    pub issuer: Option<Arc<OidcIssuer>>,
    /// Where the facts come from: `cache` or `live`.
    pub lookup: &'static str,
}

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// The process has just started.
    #[error("the copies of ServiceAccounts, bindings and issuers are not complete yet")]
    NotSynced,
    /// The API server took too long.
    #[error("the API server did not answer about the ServiceAccount in time")]
    Timeout,
    /// The API server refused, or cannot be reached.
    #[error("the API server could not be asked about the ServiceAccount: {0}")]
    Failed(Arc<str>),
}

/// A live answer: annotations and bindings of one `ServiceAccount`.
type Live = (Arc<Annotations>, Vec<Arc<PodIdentityBinding>>);
type Flight = Shared<BoxFuture<'static, Result<Live, LookupError>>>;

/// The copies, and the way to the API server.
pub struct Lookup {
    accounts: Mirror<Annotations>,
    bindings: Mirror<PodIdentityBinding>,
    issuers: Mirror<OidcIssuer>,
    client: Client,
    /// Annotations that count begin with it.
    prefix: String,
    timeout: Duration,
    flights: Arc<Mutex<HashMap<(String, String), Flight>>>,
    metrics: Arc<Metrics>,
}

impl Lookup {
    /// Empty copies. `annotation_prefix` is without the slash; `timeout` bounds one look at the API server.
    #[must_use]
    pub fn new(client: Client, annotation_prefix: &str, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            accounts: Mirror::default(),
            bindings: Mirror::default(),
            issuers: Mirror::default(),
            client,
            prefix: format!("{annotation_prefix}/"),
            timeout,
            flights: Arc::default(),
            metrics,
        }
    }

    /// Keeps the copies; returns only if a watch ends, which it never does by itself.
    pub async fn follow(&self) {
        // Kube's default: consistent lists in pages, so that a copy is never complete and stale.
        // They end before a silent connection is given up, so that a quiet watch is no silent one.
        let config = || watcher::Config::default().timeout(WATCH_SECONDS);
        let client = || self.client.clone();
        let accounts = watch(Api::<PartialObjectMeta<ServiceAccount>>::all(client()), config());
        let bindings = watch(Api::<PodIdentityBinding>::all(client()), config());
        let issuers = watch(Api::<OidcIssuer>::all(client()), config());
        tokio::select! {
            () = self.copy("ServiceAccount", accounts, &self.accounts, |account| annotations(account, &self.prefix)) => {}
            () = self.copy("PodIdentityBinding", bindings, &self.bindings, without_managed_fields) => {}
            () = self.copy("OidcIssuer", issuers, &self.issuers, without_managed_fields) => {}
        }
    }

    async fn copy<K: Resource, T>(
        &self,
        kind: &'static str,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        mirror: &Mirror<T>,
        keep: impl Fn(K) -> T,
    ) {
        self.metrics.cache(kind, false, 0);
        let entry = |object: K| Entry {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            value: Arc::new(keep(object)),
        };
        let mut events = std::pin::pin!(events.default_backoff());
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(Event::Init) => Event::Init,
                Ok(Event::InitApply(object)) => Event::InitApply(entry(object)),
                Ok(Event::InitDone) => Event::InitDone,
                Ok(Event::Apply(object)) => Event::Apply(entry(object)),
                Ok(Event::Delete(object)) => Event::Delete(entry(object)),
                Err(error) => {
                    tracing::warn!(kind, error = %error, "the watch failed and is tried again");
                    continue;
                }
            };
            let listed = matches!(event, Event::InitDone);
            let (synced, objects) = mirror.apply(event);
            self.metrics.cache(kind, synced, objects);
            if listed {
                tracing::info!(kind, objects, "the copy is complete");
            }
        }
    }

    /// Whether all copies have been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.accounts.is_synced() && self.bindings.is_synced() && self.issuers.is_synced()
    }

    /// What is known about a `ServiceAccount`.
    pub async fn facts(&self, namespace: &str, account: &str) -> Result<Facts, LookupError> {
        if !self.is_synced() {
            return Err(LookupError::NotSynced);
        }
        let (lookup, (annotations, bindings)) = match self.accounts.get(namespace, account) {
            Some(annotations) => {
                let bindings = self.bindings.select(namespace, |b| b.spec.service_account_name == account);
                ("cache", (annotations, bindings))
            }
            None => ("live", self.live(namespace, account).await?),
        };
        Ok(Facts { annotations, bindings, issuer: self.issuers.get("", names::DEFAULT_ISSUER), lookup })
    }

    /// Joins the look that is under way for this `ServiceAccount`, or starts one. It runs in a task of its own: a caller
    /// that gives up does not take the others' answer with it, and its end always clears the way for the next.
    async fn live(&self, namespace: &str, account: &str) -> Result<Live, LookupError> {
        let key = (namespace.to_owned(), account.to_owned());
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            flights.entry(key.clone()).or_insert_with(|| self.take_off(key)).clone()
        };
        flight.await
    }

    fn take_off(&self, key: (String, String)) -> Flight {
        let (client, prefix, timeout) = (self.client.clone(), self.prefix.clone(), self.timeout);
        let (flights, metrics) = (Arc::clone(&self.flights), Arc::clone(&self.metrics));
        let task = tokio::spawn(async move {
            let look = ask(client, &key.0, &key.1, &prefix);
            let answer = tokio::time::timeout(timeout, look).await.unwrap_or(Err(LookupError::Timeout));
            flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            metrics.looked_up(match &answer {
                Ok(_) => "ok",
                Err(LookupError::Timeout) => "timeout",
                Err(_) => "error",
            });
            answer
        });
        task.map(|done| done.unwrap_or_else(|error| Err(LookupError::Failed(error.to_string().into()))))
            .boxed()
            .shared()
    }
}

/// One `ServiceAccount` and its bindings as the API server has them now. A `ServiceAccount` that does not exist has no
/// annotations; the API server refuses the pod by itself.
async fn ask(client: Client, namespace: &str, account: &str, prefix: &str) -> Result<Live, LookupError> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let bindings = Api::<PodIdentityBinding>::namespaced(client, namespace);
    let everything = ListParams::default();
    let (found, listed) =
        tokio::try_join!(accounts.get_metadata_opt(account), bindings.list(&everything)).map_err(failed)?;
    let annotations = found.map(|found| annotations(found, prefix)).unwrap_or_default();
    let bindings = listed.items.into_iter().filter(|binding| binding.spec.service_account_name == account);
    Ok((Arc::new(annotations), bindings.map(Arc::new).collect()))
}

/// `kube::Error::Api` prints as a debugging dump: the message is what a person can read.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn failed(error: kube::Error) -> LookupError {
    LookupError::Failed(match &error {
        kube::Error::Api(status) => status.message.as_str().into(),
        other => other.to_string().into(),
    })
}

fn annotations(account: PartialObjectMeta<ServiceAccount>, prefix: &str) -> Annotations {
    let mut annotations = account.metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| key.starts_with(prefix));
    annotations
}

/// They are most of an object's size, and nobody here reads them.
fn without_managed_fields<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
