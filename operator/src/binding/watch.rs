//! What wakes a binding's reconcile: itself, its period, its issuer, its `ServiceAccount`, and an older binding's end.

use std::sync::Arc;

use crds::{OidcIssuer, PodIdentityBinding};
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, reflector};
use kube::runtime::watcher::Event;
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, controller::Action, predicates, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::reconcile::Error;
use crate::watch;

/// Reconciles at once; each is a handful of AWS calls, and the SDK retries what is throttled.
const CONCURRENCY: u16 = 16;

/// The issuers as bindings see them.
pub struct Issuers {
    /// All issuers.
    pub store: Store<OidcIssuer>,
    /// Cancelled once the store holds what the API server has.
    pub synced: CancellationToken,
}

/// What the bindings' controller is made of; its stores are needed before it runs.
pub struct Bindings {
    /// The controller's machinery.
    pub controller: Controller<PodIdentityBinding>,
    /// The issuers.
    pub issuers: Issuers,
    /// A `()` whenever a binding is gone, or may be.
    pub ends: UnboundedReceiver<()>,
}

/// Reads nothing before the controller runs.
#[must_use]
pub fn controller(client: &Client) -> Bindings {
    let writer = Writer::default();
    let bindings = writer.as_reader();
    let (ended, ends) = mpsc::unbounded();
    let (inherit, heirs) = mpsc::unbounded();
    let orphan = inherit.clone();
    let siblings = bindings.clone();
    // The store is written first: whom an end wakes, no longer sees who is gone. An end is told by the event and not by
    // a deletion timestamp: what has no finalizer goes without ever having had one.
    let changes = reflector(writer, watcher(Api::all(client.clone()), process::watch::config()))
        .inspect_ok(move |event: &Event<PodIdentityBinding>| {
            let heirs = match event {
                Event::Delete(gone) => {
                    let account = &gone.spec.service_account_name;
                    on_account(&siblings, gone.metadata.namespace.as_deref(), account)
                }
                // While the list was read, anything may have ended; and who was listed on an earlier page of it was not
                // yet in the store when that woke it.
                Event::InitDone => all(&siblings),
                _ => return,
            };
            // Where nobody listens any more, the operator is about to stop.
            let _ = ended.unbounded_send(());
            for heir in heirs {
                let _ = inherit.unbounded_send(heir);
            }
        })
        .applied_objects();
    let (issuers, changes_of_issuer) = issuers(client, bindings.clone(), orphan);
    let accounts: Api<PartialObjectMeta<ServiceAccount>> = Api::all(client.clone());
    let (of_issuer, of_account) = (bindings.clone(), bindings.clone());
    let controller = Controller::for_stream(changes, bindings)
        // Grants, audiences and deletion concern every binding.
        .watches_stream(changes_of_issuer, move |_| all(&of_issuer))
        .watches(accounts, process::watch::config(), move |account| {
            on_account(&of_account, account.metadata.namespace.as_deref(), &account.name_any())
        })
        // The next in line for a ServiceAccount.
        .reconcile_on(heirs)
        .trigger_backoff(process::watch::backoff())
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY));
    Bindings { controller, issuers, ends }
}

/// A store of issuers, and its changes: each is told only after the store has it, so that whoever it wakes sees it.
/// Its end is told to all bindings: it is of no generation that they have not heard of.
fn issuers(
    client: &Client,
    bindings: Store<PodIdentityBinding>,
    orphan: UnboundedSender<ObjectRef<PodIdentityBinding>>,
) -> (Issuers, impl Stream<Item = Result<OidcIssuer, watcher::Error>> + use<>) {
    let writer = Writer::default();
    let (store, synced) = (writer.as_reader(), CancellationToken::new());
    let filled = synced.clone();
    let changes = reflector(writer, watcher(Api::all(client.clone()), process::watch::config()))
        .inspect_ok(move |event| match event {
            Event::InitDone => filled.cancel(),
            Event::Delete(_) => {
                for one in all(&bindings) {
                    let _ = orphan.unbounded_send(one);
                }
            }
            _ => {}
        })
        .touched_objects()
        // Its status is none of theirs; the request for its deletion is a new generation, too.
        .predicate_filter(predicates::generation, PredicateConfig::default());
    (Issuers { store, synced }, changes)
}

fn all(store: &Store<PodIdentityBinding>) -> Vec<ObjectRef<PodIdentityBinding>> {
    store.state().iter().map(|binding| ObjectRef::from_obj(binding.as_ref())).collect()
}

fn on_account(
    store: &Store<PodIdentityBinding>,
    namespace: Option<&str>,
    account: &str,
) -> Vec<ObjectRef<PodIdentityBinding>> {
    let concerned = |b: &Arc<PodIdentityBinding>| {
        b.spec.service_account_name == account && b.metadata.namespace.as_deref() == namespace
    };
    store.state().iter().filter(|b| concerned(b)).map(|b| ObjectRef::from_obj(b.as_ref())).collect()
}

/// Runs until `stop`, then lets running reconciles end.
pub async fn run(controller: Controller<PodIdentityBinding>, context: Arc<Context>, stop: CancellationToken) {
    controller
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(super::reconcile, on_error, context)
        .for_each(|result| async {
            if let Err(error) = result {
                watch::log("PodIdentityBinding", &error);
            }
        })
        .await;
}

#[allow(clippy::needless_pass_by_value, reason = "the shape the controller asks for")]
fn on_error(object: Arc<PodIdentityBinding>, error: &Error, context: Arc<Context>) -> Action {
    let key = super::key(&object);
    tracing::warn!(binding = key, %error, "reconcile failed");
    context.metrics.reconciled("PodIdentityBinding", "kubernetes");
    Action::requeue(context.backoff.failed(&key))
}
