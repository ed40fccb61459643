//! What the cluster says about a `ServiceAccount`: from watched copies, and live where the copy has never heard of it.
//!
//! The API server admits a pod only if its `ServiceAccount` exists, so one that the copy lacks was made a moment ago:
//! one bounded look at the API server, shared by all who ask at the same time, settles it. So it does while the copies are
//! not complete. A `ServiceAccount` that the copy has, without a binding, is an answer; only where a pod must not go
//! without its identity is that confirmed by a look. Where the answer is not known there is none: never "no identity".

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::{OidcIssuer, PodIdentityBinding, names};
use futures::future::{BoxFuture, FutureExt, Shared};
use futures::{Stream, StreamExt};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use process::crowd::Crowd;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::account::{self, Account};
use crate::facts::{Annotations, Bound, Issuer};
use crate::identity::Facts;
use crate::metrics::{Metrics, Without};
use crate::mirror::{Bindings, Change, Entry, Mirror};
use crate::recent::{Early, Recent};
use crate::sources::Sources;

/// Looks at the API server under way at once.
const LOOKS: usize = 32;
/// Looks that wait or are under way; beyond that, those make room whose address asks for the most.
const WAITING: usize = 512;
/// Bindings read at once; kube's 500 could be a hundred megabytes.
const BINDINGS_PAGE: u32 = 50;

/// Where facts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The watched copies.
    Cache,
    /// A look at the API server.
    Live,
}

impl Origin {
    /// As metrics and logs name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Live => "live",
        }
    }
}

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// The API server took too long.
    #[error("the API server did not answer about the ServiceAccount in time")]
    Timeout,
    /// The API server refused, or cannot be reached.
    #[error("the API server could not be asked about the ServiceAccount: {0}")]
    Failed(Arc<str>),
    /// Others asked at the same time, and there is not room for all.
    #[error("too many ServiceAccounts are looked up at once: this one made room for others")]
    Busy,
    /// The process has just started.
    #[error("the ConfigMap with roles has not been read yet")]
    NotSynced,
}

/// A live answer about one `ServiceAccount`.
#[derive(Debug, Clone)]
struct Live {
    annotations: Option<Arc<Annotations>>,
    bindings: Vec<Arc<Bound>>,
    /// Asked for only while the copy of issuers is not complete.
    issuer: Option<Arc<Issuer>>,
}

type Flight = Shared<BoxFuture<'static, Result<Live, LookupError>>>;

/// The copies, and the way to the API server.
pub struct Lookup {
    accounts: Mirror<Option<Arc<Annotations>>>,
    bindings: Bindings,
    issuers: Mirror<Arc<Issuer>>,
    /// The ConfigMap and the container-credentials file.
    pub sources: Arc<Sources>,
    /// Pods admitted without an identity.
    pub recent: Recent,
    client: Client,
    /// Prefix of the annotations that count.
    prefix: Arc<str>,
    timeout: Duration,
    flights: Arc<Mutex<HashMap<(String, String), Flight>>>,
    looks: Arc<Semaphore>,
    waiting: Arc<Crowd>,
    metrics: Arc<Metrics>,
}

impl Lookup {
    /// Empty copies. `annotation_prefix` is without the slash; `timeout` bounds one look at the API server.
    #[must_use]
    pub fn new(
        client: Client,
        annotation_prefix: &str,
        timeout: Duration,
        sources: Arc<Sources>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            accounts: Mirror::default(),
            bindings: Bindings::default(),
            issuers: Mirror::default(),
            sources,
            recent: Recent::default(),
            client,
            prefix: annotation_prefix.into(),
            timeout,
            flights: Arc::default(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            waiting: Crowd::new(WAITING),
            metrics,
        }
    }

    /// Keeps the copies; returns only if a watch ends, which it never does by itself.
    pub async fn follow(&self) {
        // Kube's default: consistent lists in pages, so that a copy is never complete and stale. ServiceAccounts, which are
        // many and looked for live where they are missing, come another way.
        let client = || self.client.clone();
        let accounts = account::watch(client(), process::watch::config());
        // One object that cannot be read must not keep all others away.
        let bindings = watch(
            Api::<DeserializeGuard<PodIdentityBinding>>::all(client()),
            process::watch::config().page_size(BINDINGS_PAGE),
        );
        let issuers = watch(Api::<DeserializeGuard<OidcIssuer>>::all(client()), process::watch::config());
        tokio::select! {
            () = self.copy("ServiceAccount", accounts, |change| self.accounts.apply(change), |account| {
                let kept = annotations(account, &self.prefix);
                let has_role = kept.as_ref().is_some_and(|kept| kept.role().is_some());
                Some((kept, has_role.then(|| account.name_any())))
            }) => {}
            () = self.copy("PodIdentityBinding", bindings, |change| self.bindings.apply(change), |guard| {
                let bound = Bound::from(readable("PodIdentityBinding", guard)?);
                let account = (!bound.deleting).then(|| bound.service_account.to_string());
                Some((Arc::new(bound), account))
            }) => {}
            () = self.copy("OidcIssuer", issuers, |change| self.issuers.apply(change), |guard| {
                Some((Arc::new(Issuer::from(readable("OidcIssuer", guard)?)), None))
            }) => {}
        }
    }

    /// Keeps one copy. `keep` says what is kept of an object, and which `ServiceAccount` has an identity by it.
    async fn copy<K: Resource<DynamicType = ()>, T>(
        &self,
        kind: &'static str,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        apply: impl Fn(Change<T>) -> (bool, usize),
        keep: impl Fn(&K) -> Option<(T, Option<String>)>,
    ) {
        self.metrics.cache(kind, false, 0);
        let namespace = |object: &K| object.meta().namespace.as_deref().unwrap_or_default().into();
        let entry = |object: &K| {
            let (value, identified) = keep(object)?;
            Some((Entry { namespace: namespace(object), name: object.name_any().into(), value }, identified))
        };
        let mut events = std::pin::pin!(events.backoff(process::watch::backoff()));
        while let Some(event) = events.next().await {
            let (change, identified) = match event {
                Ok(Event::Init) => (Change::Begin, None),
                Ok(Event::InitDone) => (Change::End, None),
                Ok(Event::InitApply(object)) => match entry(&object) {
                    Some((entry, _)) => (Change::Listed(entry), None),
                    None => continue,
                },
                Ok(Event::Apply(object)) => match entry(&object) {
                    Some((entry, account)) => {
                        (Change::Put(entry), account.map(|account| (namespace(&object), account)))
                    }
                    None => continue,
                },
                Ok(Event::Delete(object)) => {
                    (Change::Remove(namespace(&object), object.name_any().into()), None)
                }
                Err(error) => {
                    tracing::warn!(kind, error = %error, "the watch failed and is tried again");
                    continue;
                }
            };
            let listed = matches!(change, Change::End);
            let (synced, objects) = apply(change);
            self.metrics.cache(kind, synced, objects);
            // Only now: whoever is noted before this is told here, whoever after finds it in the copy.
            if let Some((namespace, account)) = identified {
                self.tell_early(&namespace, &account);
            }
            if listed {
                for (namespace, account) in self.recent.accounts() {
                    self.tell_early_if_identified(&namespace, &account);
                }
                tracing::info!(kind, objects, "the copy is complete");
            }
        }
    }

    /// Remembers a pod that was admitted without an identity, and tells at once if that has come meanwhile.
    pub fn note_early(&self, early: Early) {
        let (namespace, account) = (early.namespace.clone(), early.account.clone());
        self.recent.note(early);
        self.tell_early_if_identified(&namespace, &account);
    }

    fn tell_early_if_identified(&self, namespace: &str, account: &str) {
        let annotations = self.accounts.get(namespace, account).flatten();
        let annotated = annotations.is_some_and(|annotations| annotations.role().is_some());
        if annotated || self.bindings.of(namespace, account).iter().any(|bound| !bound.deleting) {
            self.tell_early(namespace, account);
        }
    }

    /// A `ServiceAccount` has an identity now: names its pods that were admitted without one a moment ago.
    fn tell_early(&self, namespace: &str, account: &str) {
        for Early { pod, at, .. } in self.recent.of(namespace, account, Instant::now()) {
            self.metrics.without_identity(Without::BeforeIdentity);
            tracing::warn!(
                namespace,
                service_account = account,
                pod = &*pod,
                milliseconds = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX),
                "a pod was admitted without its identity, so long before this program knew of it: restart it"
            );
        }
    }

    /// Whether all copies have been complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.accounts.is_synced()
            && self.bindings.is_synced()
            && self.issuers.is_synced()
            && self.sources.is_synced()
    }

    /// What is known about a `ServiceAccount`. With `confirm`, that it has no binding is known only from a look.
    /// Room for looks is shared between those who ask, told by address.
    pub async fn facts(
        &self,
        namespace: &str,
        account: &str,
        confirm: bool,
        peer: IpAddr,
    ) -> Result<(Facts, Origin), LookupError> {
        let cached = (self.accounts.is_synced() && self.bindings.is_synced() && self.issuers.is_synced())
            .then(|| self.accounts.get(namespace, account))
            .flatten()
            .map(|annotations| (annotations, self.bindings.of(namespace, account)))
            .filter(|(annotations, bindings)| {
                let role = annotations.as_ref().and_then(|annotations| annotations.role());
                !confirm || role.is_some() || !bindings.is_empty()
            });
        let issuer = self.issuers.get("", names::DEFAULT_ISSUER);
        let (annotations, bindings, issuer, origin) = if let Some((annotations, bindings)) = cached {
            (annotations, bindings, issuer, Origin::Cache)
        } else {
            let live = self.live(namespace, account, peer).await?;
            (live.annotations, live.bindings, issuer.or(live.issuer), Origin::Live)
        };
        let facts = Facts {
            annotations,
            bindings,
            issuer,
            mapped: self.sources.mapped(namespace, account),
            container_credentials: self.sources.has_container_credentials(namespace, account),
        };
        // Whoever has no identity so far may have one in a ConfigMap or file that has not been read.
        let annotated = facts.annotations.as_ref().is_some_and(|annotations| annotations.role().is_some());
        let bound = facts.bindings.iter().any(|bound| !bound.deleting && !bound.hopeless);
        if !(annotated || bound || facts.container_credentials || self.sources.is_synced()) {
            return Err(LookupError::NotSynced);
        }
        Ok((facts, origin))
    }

    /// Joins the look that is under way for this `ServiceAccount`, or starts one. It runs in a task of its own: a caller
    /// that gives up does not take the others' answer with it, and its end always clears the way for the next.
    async fn live(&self, namespace: &str, account: &str, peer: IpAddr) -> Result<Live, LookupError> {
        let key = (namespace.to_owned(), account.to_owned());
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            flights.entry(key.clone()).or_insert_with(|| self.take_off(key, peer)).clone()
        };
        flight.await
    }

    fn take_off(&self, key: (String, String), peer: IpAddr) -> Flight {
        let (client, prefix, timeout) = (self.client.clone(), Arc::clone(&self.prefix), self.timeout);
        let (flights, metrics) = (Arc::clone(&self.flights), Arc::clone(&self.metrics));
        let (looks, issuers) = (Arc::clone(&self.looks), !self.issuers.is_synced());
        let guest = self.waiting.enter(1, peer);
        let task = tokio::spawn(async move {
            let look = async {
                let _held = looks.acquire().await; // nobody closes it
                ask(client, &key.0, &key.1, &prefix, issuers).await
            };
            let answer = tokio::select! {
                answer = tokio::time::timeout(timeout, look) => answer.unwrap_or(Err(LookupError::Timeout)),
                () = guest.gone().cancelled() => Err(LookupError::Busy),
            };
            flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            metrics.looked_up(match &answer {
                Ok(_) => "ok",
                Err(LookupError::Timeout) => "timeout",
                Err(LookupError::Busy) => "busy",
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
async fn ask(
    client: Client,
    namespace: &str,
    account: &str,
    prefix: &str,
    with_issuer: bool,
) -> Result<Live, LookupError> {
    let accounts = Api::<Account>::namespaced(client.clone(), namespace);
    let bindings = Api::<DeserializeGuard<PodIdentityBinding>>::namespaced(client.clone(), namespace);
    let issuers = Api::<DeserializeGuard<OidcIssuer>>::all(client);
    let issuer = async { if with_issuer { issuers.get_opt(names::DEFAULT_ISSUER).await } else { Ok(None) } };
    let (found, bindings, issuer) =
        tokio::try_join!(accounts.get_opt(account), bindings_of(&bindings, account), issuer)
            .map_err(failed)?;
    Ok(Live {
        annotations: found.and_then(|found| annotations(&found, prefix)),
        bindings,
        issuer: issuer.and_then(|guard| Some(Arc::new(readable("OidcIssuer", &guard)?.into()))),
    })
}

/// The bindings of a `ServiceAccount`. Of the namespace's others nothing is kept, and only a page of them is held at once:
/// each may be as large as its writer likes.
async fn bindings_of(
    bindings: &Api<DeserializeGuard<PodIdentityBinding>>,
    account: &str,
) -> Result<Vec<Arc<Bound>>, kube::Error> {
    let mut page = ListParams::default().limit(BINDINGS_PAGE);
    let mut found = Vec::new();
    loop {
        let listed = bindings.list(&page).await?;
        let readable = listed.items.iter().filter_map(|guard| readable("PodIdentityBinding", guard));
        let theirs = readable.filter(|binding| binding.spec.service_account_name == account);
        found.extend(theirs.map(|binding| Arc::new(binding.into())));
        match listed.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => return Ok(found),
        }
    }
}

/// `kube::Error::Api` prints as a debugging dump: the message is what a person can read.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn failed(error: kube::Error) -> LookupError {
    LookupError::Failed(match &error {
        kube::Error::Api(status) => status.message.as_str().into(),
        other => other.to_string().into(),
    })
}

fn annotations(account: &Account, prefix: &str) -> Option<Arc<Annotations>> {
    Annotations::read(account.meta().annotations.as_ref()?, prefix).map(Arc::new)
}

/// The object, unless it has a form that this program does not know.
fn readable<K: Resource<DynamicType = ()> + Clone>(kind: &str, guard: &DeserializeGuard<K>) -> Option<K> {
    match &guard.0 {
        Ok(object) => Some(object.clone()),
        Err(invalid) => {
            let (namespace, name) = (invalid.metadata.namespace.as_deref(), invalid.metadata.name.as_deref());
            tracing::warn!(kind, namespace, name, "an object cannot be read and does not count");
            None
        }
    }
}
