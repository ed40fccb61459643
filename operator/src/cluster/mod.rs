//! All issuers and bindings of the cluster, and which refers to which. One watch of each kind; the stores are written
//! before an event wakes anything, so that whatever it wakes sees the change.

pub mod answers;
mod kept;
pub mod namespaces;
mod newest;
mod readable;
pub mod references;
mod retried;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crds::condition::ConditionType;
use crds::conditions::{Messages, find};
use crds::names::CONFIRM_ANNOTATION;
use crds::{OidcIssuer, PodIdentityBinding, in_effect};
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, reflector};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use self::answers::Answers;
use self::kept::keep_what_is_read;
use self::namespaces::{Labels, Namespaces};
use self::newest::Found;
use self::readable::readable;
use self::references::{Key, References};
pub use self::retried::retried_watch;

/// What the cluster holds. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    /// All issuers.
    pub issuers: Store<OidcIssuer>,
    /// All bindings.
    pub bindings: Store<PodIdentityBinding>,
    references: Arc<RwLock<References>>,
    issuers_synced: CancellationToken,
    bindings_synced: CancellationToken,
    namespaces: Namespaces,
    newest: Arc<Answers<Found>>,
}

/// What follows the cluster: nothing is read before it is polled.
pub struct Following {
    /// Issuers.
    pub issuers: Feed<OidcIssuer>,
    /// Bindings.
    pub bindings: Feed<PodIdentityBinding>,
    /// The labels of namespaces.
    pub namespaces: BoxFuture<'static, ()>,
}

/// Makes the controller of a kind reconcile objects.
#[derive(Debug)]
pub struct Waker<K: kube::Resource<DynamicType = ()>>(UnboundedSender<ObjectRef<K>>);

impl<K: kube::Resource<DynamicType = ()>> Clone for Waker<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: kube::Resource<DynamicType = ()>> Waker<K> {
    /// Wakes these. Errors are ignored: the receiver is dropped only when the operator stops.
    pub fn wake(&self, objects: impl IntoIterator<Item = ObjectRef<K>>) {
        for object in objects {
            let _ = self.0.unbounded_send(object);
        }
    }
}

/// The changes of one kind, and the objects of it that a change of something else concerns.
pub struct Feed<K: kube::Resource<DynamicType = ()>> {
    /// Changes of the objects themselves.
    pub changes: futures::stream::BoxStream<'static, Result<K, watcher::Error>>,
    /// Objects that something else concerns.
    pub woken: UnboundedReceiver<ObjectRef<K>>,
    /// What wakes them.
    pub waker: Waker<K>,
}

impl Cluster {
    /// The stores, and what keeps them. `unbound` is called with namespace and name of a `ServiceAccount` whose last binding has
    /// ended.
    #[must_use]
    pub fn watch(client: &Client, unbound: impl Fn(&Key) + Send + Sync + 'static) -> (Self, Following) {
        let (issuer_writer, bindings) = (Writer::default(), Writer::default());
        let cluster = Self {
            issuers: issuer_writer.as_reader(),
            bindings: bindings.as_reader(),
            references: Arc::default(),
            issuers_synced: CancellationToken::new(),
            bindings_synced: CancellationToken::new(),
            namespaces: Namespaces::default(),
            newest: Arc::default(),
        };
        let (wake_issuers, woken_issuers) = waker();
        let (wake_bindings, woken_bindings) = waker();
        let changes = cluster.clone().follow_issuers(
            client,
            issuer_writer,
            wake_issuers.clone(),
            wake_bindings.clone(),
        );
        let issuers = Feed { changes: changes.boxed(), woken: woken_issuers, waker: wake_issuers.clone() };
        let (index, wake_by_labels) = (cluster.clone(), wake_bindings.clone());
        let relabelled = move |namespace: Option<&str>| {
            let mut concerned = index.all_bindings();
            concerned.retain(|binding| namespace.is_none() || binding.namespace.as_deref() == namespace);
            wake_by_labels.wake(concerned);
        };
        let namespaces = namespaces::follow(client.clone(), cluster.namespaces.clone(), relabelled).boxed();
        let waker = wake_bindings.clone();
        let changes = cluster.clone().follow_bindings(client, bindings, wake_issuers, wake_bindings, unbound);
        let bindings = Feed { changes: changes.boxed(), woken: woken_bindings, waker };
        (cluster, Following { issuers, bindings, namespaces })
    }

    /// Returns once the labels of all namespaces are known.
    pub async fn namespaces_synced(&self) {
        self.namespaces.synced.cancelled().await;
    }

    /// Returns once the labels of all namespaces are known, or could not be listed.
    pub async fn namespaces_asked(&self) {
        self.namespaces.asked.cancelled().await;
    }

    /// The labels of a namespace; `None` where they are not known.
    #[must_use]
    pub fn labels(&self, namespace: &str) -> Option<Labels> {
        self.namespaces.labels(namespace)
    }

    /// The bindings that use an issuer, or ask for it.
    #[must_use]
    pub fn bindings_of(&self, issuer: &str) -> Vec<Arc<PodIdentityBinding>> {
        let mut all = self.bindings.state();
        all.retain(|binding| in_effect::uses_issuer(binding, issuer));
        all
    }

    /// Returns once the store of issuers holds what the API server has: before, an empty store is no answer.
    pub async fn issuers_synced(&self) {
        self.issuers_synced.cancelled().await;
    }

    /// Returns once the store of bindings holds what the API server has.
    pub async fn bindings_synced(&self) {
        self.bindings_synced.cancelled().await;
    }

    /// The issuer of that name.
    #[must_use]
    pub fn issuer(&self, name: &str) -> Option<Arc<OidcIssuer>> {
        self.issuers.get(&ObjectRef::new(name))
    }

    /// Whether the API server has the issuer of that name as a pass has seen it, or none if it has seen none. The answer is not older than
    /// `asked`.
    ///
    /// # Errors
    ///
    /// The API server did not answer.
    pub async fn is_newest(
        &self,
        client: &Client,
        name: &str,
        issuer: Option<&OidcIssuer>,
        asked: Instant,
    ) -> Result<bool, kube::Error> {
        newest::has_issuer(&self.newest, client, name, issuer, asked).await
    }

    /// The labels of a namespace by the API server's own answer; `None`: there is none of that name.
    ///
    /// # Errors
    ///
    /// The API server did not answer.
    pub async fn newest_labels(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Result<Option<Labels>, kube::Error> {
        newest::labels(client, namespace).await
    }

    /// The bindings on a `ServiceAccount`.
    #[must_use]
    pub fn bindings_on(&self, namespace: &str, service_account: &str) -> Vec<Arc<PodIdentityBinding>> {
        let references = self.references.read().unwrap_or_else(PoisonError::into_inner);
        let found = references.on(namespace, service_account);
        found.filter_map(|name| self.bindings.get(&ObjectRef::new(name).within(namespace))).collect()
    }

    /// References to the bindings on a `ServiceAccount`.
    #[must_use]
    pub fn on_service_account(
        &self,
        namespace: &str,
        service_account: &str,
    ) -> Vec<ObjectRef<PodIdentityBinding>> {
        let references = self.references.read().unwrap_or_else(PoisonError::into_inner);
        references.on(namespace, service_account).map(|name| ObjectRef::new(name).within(namespace)).collect()
    }

    /// References to all bindings.
    fn all_bindings(&self) -> Vec<ObjectRef<PodIdentityBinding>> {
        self.bindings.state().iter().map(|binding| ObjectRef::from_obj(&**binding)).collect()
    }

    /// References to the bindings that use an issuer.
    fn of_issuer(&self, issuer: &str) -> Vec<ObjectRef<PodIdentityBinding>> {
        self.bindings_of(issuer).iter().map(|binding| ObjectRef::from_obj(&**binding)).collect()
    }

    /// Keeps store and index of bindings. Every change of a binding concerns the other bindings on its `ServiceAccount`; its end
    /// concerns its issuer, too, whose deletion may wait for it. A deletion is detected by its event and not by a deletion timestamp: an
    /// object without finalizers never has one.
    fn follow_bindings<F: Fn(&Key) + Send + Sync + 'static>(
        self,
        client: &Client,
        writer: Writer<PodIdentityBinding>,
        wake_issuers: Waker<OidcIssuer>,
        wake_bindings: Waker<PodIdentityBinding>,
        unbound: F,
    ) -> impl Stream<Item = Result<PodIdentityBinding, watcher::Error>> + use<F> {
        let mut listed = References::default();
        let events = retried_watch(Api::all(client.clone()));
        let mut messages = Messages::default();
        let kept = readable(self.bindings.clone(), events)
            .modify(move |binding| keep_what_is_read(binding, &mut messages));
        reflector(writer, kept)
            .inspect_ok(move |event: &Event<PodIdentityBinding>| match event {
                Event::Init => listed = References::default(),
                Event::InitApply(binding) => put(&mut listed, binding),
                Event::InitDone => {
                    let before =
                        self.index(|references| std::mem::replace(references, std::mem::take(&mut listed)));
                    self.bindings_synced.cancel();
                    // A binding that ended while there was no watch has no event.
                    let has_none = |account: &Key| self.on_service_account(&account.0, &account.1).is_empty();
                    before.service_accounts().filter(has_none).for_each(|account| unbound(&account));
                    // While the list was read, any object may have ended; and one that was listed on an earlier page was
                    // not yet in the store when that woke it.
                    wake_issuers
                        .wake(self.issuers.state().iter().map(|issuer| ObjectRef::from_obj(&**issuer)));
                    wake_bindings.wake(self.all_bindings());
                }
                Event::Apply(binding) => {
                    self.index(|references| put(references, binding));
                    let (namespace, name) = key(binding);
                    // Which binding holds the ServiceAccount, and whether it is Ready, concerns the others on it.
                    let mut others = self.on_service_account(&namespace, &binding.spec.service_account_name);
                    others.retain(|other| other.name != name);
                    wake_bindings.wake(others);
                }
                Event::Delete(binding) => {
                    let (namespace, name) = key(binding);
                    self.index(|references| references.remove(&namespace, &name));
                    let issuers = [binding.spec.issuer_name(), in_effect::issuer_of_role(binding)];
                    wake_issuers.wake(issuers.map(ObjectRef::new));
                    let others = self.on_service_account(&namespace, &binding.spec.service_account_name);
                    if others.is_empty() {
                        unbound(&(namespace, binding.spec.service_account_name.clone()));
                    }
                    wake_bindings.wake(others);
                }
            })
            .applied_objects()
    }

    /// Keeps the store of issuers. A new generation of an issuer concerns its bindings (grants, audiences, the request for
    /// its deletion), and so does the end of an outage of AWS, for which they need not wait as long as their back-off says,
    /// and that it is abandoned; the rest of its status does not. A new issuer and the end of one concern all bindings: roles of any issuer of the
    /// cluster are its own.
    fn follow_issuers(
        self,
        client: &Client,
        writer: Writer<OidcIssuer>,
        wake_issuers: Waker<OidcIssuer>,
        wake_bindings: Waker<PodIdentityBinding>,
    ) -> impl Stream<Item = Result<OidcIssuer, watcher::Error>> + use<> {
        type Version = (Option<String>, Option<i64>, [bool; 2], Option<String>);
        let version = |issuer: &OidcIssuer| {
            let flags = [is_unreachable(issuer), issuer.is_abandoned()];
            let confirmed = issuer.annotations().get(CONFIRM_ANNOTATION).cloned();
            (issuer.uid(), issuer.metadata.generation, flags, confirmed)
        };
        let mut known: BTreeMap<String, Version> = BTreeMap::new();
        let events = retried_watch(Api::all(client.clone()));
        reflector(writer, readable(self.issuers.clone(), events))
            .inspect_ok(move |event: &Event<OidcIssuer>| match event {
                Event::Init | Event::InitApply(_) => {}
                Event::InitDone => {
                    let all = self.issuers.state();
                    let now: BTreeMap<String, Version> =
                        all.iter().map(|issuer| (issuer.name_any(), version(issuer))).collect();
                    if now.keys().eq(known.keys()) {
                        for (name, _) in
                            now.iter().filter(|(name, version)| known.get(*name) != Some(version))
                        {
                            wake_bindings.wake(self.of_issuer(name));
                        }
                    } else {
                        wake_bindings.wake(self.all_bindings());
                    }
                    known = now;
                    self.issuers_synced.cancel();
                    wake_issuers.wake(all.iter().map(|issuer| ObjectRef::from_obj(&**issuer)));
                }
                Event::Apply(issuer) => {
                    let (name, version) = (issuer.name_any(), version(issuer));
                    match known.insert(name.clone(), version.clone()) {
                        None => wake_bindings.wake(self.all_bindings()),
                        Some(before) if before != version => wake_bindings.wake(self.of_issuer(&name)),
                        Some(_) => {}
                    }
                }
                Event::Delete(issuer) => {
                    known.remove(&issuer.name_any());
                    wake_bindings.wake(self.all_bindings());
                }
            })
            .applied_objects()
    }

    fn index<T>(&self, change: impl FnOnce(&mut References) -> T) -> T {
        change(&mut self.references.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether its status says that calls to AWS fail.
fn is_unreachable(issuer: &OidcIssuer) -> bool {
    let conditions = issuer.status.as_ref().map_or(&[][..], |status| &*status.conditions);
    find(conditions, ConditionType::AWSReachable).is_some()
}

fn key(binding: &PodIdentityBinding) -> Key {
    (binding.namespace().unwrap_or_default(), binding.name_any())
}

fn put(references: &mut References, binding: &PodIdentityBinding) {
    let (namespace, name) = key(binding);
    references.put(&namespace, &name, &binding.spec.service_account_name);
}

fn waker<K: kube::Resource<DynamicType = ()>>() -> (Waker<K>, UnboundedReceiver<ObjectRef<K>>) {
    let (sender, receiver) = mpsc::unbounded();
    (Waker(sender), receiver)
}
