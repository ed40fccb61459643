//! Live lookups: one `ServiceAccount` with its bindings and issuers, read from the API server.
//!
//! Concurrent requests for the same `ServiceAccount` share one lookup. Lookups are limited in number and in time; at the
//! limit those are evicted whose caller's address has the most.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::{OidcIssuer, PodIdentityBinding};
use futures::future::{BoxFuture, FutureExt, Shared};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use process::limiter::CapacityLimiter;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::cluster::readable::{issuer_facts, readable};
use crate::cluster::service_account::ServiceAccountMetadata;
use crate::identity::facts::{Annotations, BindingFacts};
use crate::identity::issuers::Issuers;
use crate::metrics::Metrics;

/// Lookups in progress at the same time.
const CONCURRENT_LOOKUPS: usize = 32;
/// Lookups that wait or are in progress.
const MAX_LOOKUPS: usize = 512;
/// Bindings read at once; kube's 500 could be a hundred megabytes.
pub(super) const BINDINGS_PAGE: u32 = 50;
/// Issuers read at once.
const ISSUERS_PAGE: u32 = 100;

/// Why the facts about a `ServiceAccount` are not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// The API server took too long.
    #[error("the API server did not answer about the ServiceAccount in time")]
    Timeout,
    /// The API server refused, or cannot be reached.
    #[error("the API server could not be asked about the ServiceAccount: {0}")]
    Failed(Arc<str>),
    /// The limit of lookups was reached.
    #[error("too many ServiceAccounts are looked up at the same time: this lookup was evicted")]
    Busy,
    /// The process has just started.
    #[error("the ConfigMap with roles has not been read yet")]
    NotSynced,
}

/// The result of a live lookup.
#[derive(Debug, Clone)]
pub(super) struct LiveFacts {
    pub(super) annotations: Option<Arc<Annotations>>,
    pub(super) bindings: Vec<Arc<BindingFacts>>,
    /// Empty where issuers were not requested.
    pub(super) issuers: Arc<Issuers>,
}

type PendingLookup = Shared<BoxFuture<'static, Result<LiveFacts, LookupError>>>;
type Pending = Arc<Mutex<HashMap<(String, String), PendingLookup>>>;

/// Makes live lookups.
pub(super) struct LiveLookups {
    client: Client,
    annotation_prefix: Arc<str>,
    timeout: Duration,
    pending: Pending,
    concurrent: Arc<Semaphore>,
    limiter: Arc<CapacityLimiter>,
    metrics: Arc<Metrics>,
}

impl LiveLookups {
    pub(super) fn new(
        client: Client,
        annotation_prefix: Arc<str>,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            annotation_prefix,
            timeout,
            pending: Arc::default(),
            concurrent: Arc::new(Semaphore::new(CONCURRENT_LOOKUPS)),
            limiter: CapacityLimiter::new(MAX_LOOKUPS),
            metrics,
        }
    }

    /// Joins the pending lookup of this `ServiceAccount`, or starts one. It runs in a task of its own: a caller that gives up
    /// does not cancel it for the others, and at its end it always removes itself.
    pub(super) async fn get(
        &self,
        namespace: &str,
        service_account: &str,
        with_issuers: bool,
        peer: IpAddr,
    ) -> Result<LiveFacts, LookupError> {
        let key = (namespace.to_owned(), service_account.to_owned());
        let lookup = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.entry(key.clone()).or_insert_with(|| self.start(key, with_issuers, peer)).clone()
        };
        lookup.await
    }

    fn start(&self, key: (String, String), with_issuers: bool, peer: IpAddr) -> PendingLookup {
        let (client, prefix, timeout) =
            (self.client.clone(), Arc::clone(&self.annotation_prefix), self.timeout);
        let (pending, metrics) = (Arc::clone(&self.pending), Arc::clone(&self.metrics));
        let concurrent = Arc::clone(&self.concurrent);
        let permit = self.limiter.acquire(1, peer);
        let task = tokio::spawn(async move {
            let lookup = async {
                let _turn = concurrent.acquire().await; // the semaphore is never closed
                read_live(client, &key.0, &key.1, &prefix, with_issuers).await
            };
            let result = tokio::select! {
                result = tokio::time::timeout(timeout, lookup) => result.unwrap_or(Err(LookupError::Timeout)),
                () = permit.evicted().cancelled() => Err(LookupError::Busy),
            };
            pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            metrics.looked_up(match &result {
                Ok(_) => "ok",
                Err(LookupError::Timeout) => "timeout",
                Err(LookupError::Busy) => "busy",
                Err(_) => "error",
            });
            result
        });
        task.map(|done| done.unwrap_or_else(|error| Err(LookupError::Failed(error.to_string().into()))))
            .boxed()
            .shared()
    }
}

/// A `ServiceAccount`, its bindings and, if requested, their issuers. A `ServiceAccount` that does not exist has no
/// annotations; the API server refuses its pods by itself.
async fn read_live(
    client: Client,
    namespace: &str,
    service_account: &str,
    prefix: &str,
    with_issuers: bool,
) -> Result<LiveFacts, LookupError> {
    let accounts = Api::<ServiceAccountMetadata>::namespaced(client.clone(), namespace);
    let bindings = Api::<DeserializeGuard<PodIdentityBinding>>::namespaced(client.clone(), namespace);
    let (account, bindings, issuers) = tokio::try_join!(
        accounts.get_opt(service_account),
        read_bindings(&bindings, service_account),
        async { if with_issuers { read_issuers(client).await } else { Ok(Issuers::default()) } },
    )
    .map_err(failed)?;
    let annotations = account.and_then(|account| account.annotations(prefix));
    Ok(LiveFacts { annotations, bindings, issuers: Arc::new(issuers) })
}

/// The bindings of a `ServiceAccount`. Nothing is kept of the namespace's others, and only one page of them is in memory:
/// users may make each as large as they like.
async fn read_bindings(
    bindings: &Api<DeserializeGuard<PodIdentityBinding>>,
    service_account: &str,
) -> Result<Vec<Arc<BindingFacts>>, kube::Error> {
    let mut page = ListParams::default().limit(BINDINGS_PAGE);
    let mut found = Vec::new();
    loop {
        let listed = bindings.list(&page).await?;
        let readable = listed.items.iter().filter_map(|guard| readable("PodIdentityBinding", guard));
        let matching = readable.filter(|binding| binding.spec.service_account_name == service_account);
        found.extend(matching.map(|binding| Arc::new(binding.into())));
        match listed.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => return Ok(found),
        }
    }
}

/// All issuers, which are few: which one is the default follows from all of them.
async fn read_issuers(client: Client) -> Result<Issuers, kube::Error> {
    let issuers = Api::<DeserializeGuard<OidcIssuer>>::all(client);
    let mut page = ListParams::default().limit(ISSUERS_PAGE);
    let mut found = Vec::new();
    loop {
        let listed = issuers.list(&page).await?;
        found.extend(listed.items.iter().map(|guard| Arc::new(issuer_facts(guard))));
        match listed.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = page.continue_token(&next),
            None => return Ok(Issuers::all(found)),
        }
    }
}

/// `kube::Error::Api` prints as a debugging dump; its message is what a person can read.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes the error by value")]
fn failed(error: kube::Error) -> LookupError {
    LookupError::Failed(match &error {
        kube::Error::Api(status) => status.message.as_str().into(),
        other => other.to_string().into(),
    })
}
