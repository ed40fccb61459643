//! The labels of all namespaces: grants may select by them. Of a namespace, nothing else is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

/// The labels of one namespace. Cheap to clone.
pub type Labels = Arc<BTreeMap<String, String>>;

/// The labels by namespace. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    labels: Arc<RwLock<HashMap<String, Labels>>>,
    /// Cancelled once all namespaces were listed.
    pub(super) synced: CancellationToken,
    /// Cancelled once they were listed, or that has failed.
    pub(super) asked: CancellationToken,
}

impl Namespaces {
    pub(super) fn labels(&self, namespace: &str) -> Option<Labels> {
        self.labels.read().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned()
    }

    /// Returns whether the labels have changed.
    fn put(&self, namespace: &PartialObjectMeta<Namespace>) -> bool {
        let labels = Labels::new(namespace.metadata.labels.clone().unwrap_or_default());
        let mut all = self.labels.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(namespace.name_any(), labels.clone()).as_ref() != Some(&labels)
    }
}

/// Keeps the labels. `changed` is called with the name of a namespace whose labels have changed; and with `None` after a list that
/// is not the first attempt, because passes have not waited for it: the labels of any namespace may have changed.
pub(super) async fn follow(client: Client, namespaces: Namespaces, changed: impl Fn(Option<&str>) + Send) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    let events = watcher(api, process::watch::config()).backoff(process::watch::backoff());
    pin_mut!(events);
    let mut listed = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(namespace)) => {
                let labels = Labels::new(namespace.metadata.labels.clone().unwrap_or_default());
                listed.insert(namespace.name_any(), labels);
            }
            Ok(Event::InitDone) => {
                *namespaces.labels.write().unwrap_or_else(PoisonError::into_inner) =
                    std::mem::take(&mut listed);
                namespaces.synced.cancel();
                if namespaces.asked.is_cancelled() {
                    changed(None);
                }
                namespaces.asked.cancel();
            }
            Ok(Event::Apply(namespace)) => {
                if namespaces.put(&namespace) {
                    changed(Some(&namespace.name_any()));
                }
            }
            Ok(Event::Delete(namespace)) => {
                let mut all = namespaces.labels.write().unwrap_or_else(PoisonError::into_inner);
                all.remove(&namespace.name_any());
            }
            Err(error) => {
                tracing::warn!(%error, "namespaces cannot be watched: grants that select by labels wait");
                namespaces.asked.cancel();
            }
        }
    }
}
