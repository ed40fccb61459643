//! What gives identities beside bindings and annotations: the ConfigMap in kOps' form, and the container-credentials file.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crds::names;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use crate::credentials::Identities;
use crate::files;
use crate::mapping::{self, Mapped, Mapping};
use crate::metrics::Metrics;

/// Both, as they were last read.
#[derive(Debug)]
pub struct Sources {
    mapping: RwLock<Arc<Mapping>>,
    identities: RwLock<Arc<Identities>>,
    /// Whether the ConfigMap was looked for, if it is watched at all.
    synced: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Sources {
    /// None. With `config_map` they are complete only once the ConfigMap was looked for.
    #[must_use]
    pub fn new(config_map: bool, metrics: Arc<Metrics>) -> Self {
        let synced = AtomicBool::new(!config_map);
        Self { mapping: RwLock::default(), identities: RwLock::default(), synced, metrics }
    }

    /// Keeps the mapping equal to the ConfigMap; returns only if the watch ends, which it never does by itself.
    pub async fn follow_config_map(&self, client: Client, namespace: &str) {
        // A list or watch narrowed to one name is what RBAC's resourceNames lets through.
        let config = process::watch::config().fields(&format!("metadata.name={}", names::ROLE_MAP));
        self.take_all(watcher(Api::<ConfigMap>::namespaced(client, namespace), config)).await;
    }

    async fn take_all(&self, events: impl Stream<Item = watcher::Result<Event<ConfigMap>>>) {
        let mut events = std::pin::pin!(events.backoff(process::watch::backoff()));
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = false,
                Ok(Event::InitApply(map) | Event::Apply(map)) => {
                    listed = true;
                    self.take(&map);
                }
                Ok(Event::InitDone) => {
                    if !listed {
                        self.forget();
                    }
                    self.synced.store(true, Ordering::Release);
                }
                Ok(Event::Delete(_)) => self.forget(),
                Err(error) => {
                    tracing::warn!(error = %error, "the watch of the ConfigMap with roles failed and is tried again");
                }
            }
        }
    }

    /// Takes in the ConfigMap: what is right of it; what is wrong is told.
    pub fn take(&self, map: &ConfigMap) {
        let text = map.data.as_ref().and_then(|data| data.get(mapping::KEY)).map(String::as_str);
        // A ConfigMap without the key maps nobody, as if it were gone.
        let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{}");
        let (mapping, problems) = Mapping::read(text, &read(&self.mapping));
        for problem in &problems {
            tracing::error!(problem = %problem, "ConfigMap {}: an entry cannot be used", names::ROLE_MAP);
        }
        tracing::info!(entries = mapping.len(), problems = problems.len(), "roles taken from the ConfigMap");
        self.metrics.mapping(mapping.len(), problems.len());
        *self.mapping.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(mapping);
    }

    fn forget(&self) {
        self.metrics.mapping(0, 0);
        *self.mapping.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// Keeps the identities equal to the file, for ever.
    pub async fn follow_file(&self, path: &Path) {
        files::follow([path], |[content]| match content.as_deref().map(Identities::read) {
            None => self.put_identities(Identities::default()),
            Some(Ok(identities)) => self.put_identities(identities),
            Some(Err(error)) => {
                self.metrics.container_credentials_refused();
                tracing::error!(
                    line = error.line(),
                    column = error.column(),
                    "the container-credentials file is not what it must be; nothing is changed"
                );
            }
        })
        .await;
    }

    /// These are in container-credentials mode from now on.
    pub fn put_identities(&self, identities: Identities) {
        tracing::info!(identities = identities.len(), "container-credentials identities");
        self.metrics.container_credentials(identities.len());
        *self.identities.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identities);
    }

    /// Whether all that is watched has been looked for.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The `ServiceAccount`'s entry in the ConfigMap.
    #[must_use]
    pub fn mapped(&self, namespace: &str, account: &str) -> Option<Arc<Mapped>> {
        read(&self.mapping).get(namespace, account).cloned()
    }

    /// Whether the `ServiceAccount` is in the container-credentials file.
    #[must_use]
    pub fn has_container_credentials(&self, namespace: &str, account: &str) -> bool {
        read(&self.identities).contains(namespace, account)
    }
}

/// Every change is one assignment: a panic leaves nothing half-done.
fn read<T>(lock: &RwLock<Arc<T>>) -> Arc<T> {
    Arc::clone(&lock.read().unwrap_or_else(PoisonError::into_inner))
}
