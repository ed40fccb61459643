//! The sources of identities other than bindings and annotations: the ConfigMap in kOps' form, and the container-credentials
//! file.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crds::names;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use crate::identity::credentials::ContainerCredentialsList;
use crate::identity::mapping::{self, Mapped, Mapping};
use crate::metrics::Metrics;
use crate::serving::files;

/// Both, as they were last read.
#[derive(Debug)]
pub struct Sources {
    mapping: RwLock<Arc<Mapping>>,
    container_credentials: RwLock<Arc<ContainerCredentialsList>>,
    /// Whether the ConfigMap was read, or is not watched.
    synced: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Sources {
    /// Both empty. With `config_map` they are complete only once the ConfigMap was read.
    #[must_use]
    pub fn new(config_map: bool, metrics: Arc<Metrics>) -> Self {
        let synced = AtomicBool::new(!config_map);
        Self { mapping: RwLock::default(), container_credentials: RwLock::default(), synced, metrics }
    }

    /// Keeps the mapping equal to the ConfigMap; returns only if the watch ends, which it does not do by itself.
    pub async fn follow_config_map(&self, client: Client, namespace: &str) {
        // RBAC's resourceNames permits a list or watch only with this field selector.
        let config = process::watch::config().fields(&format!("metadata.name={}", names::ROLE_MAP));
        self.apply_all(watcher(Api::<ConfigMap>::namespaced(client, namespace), config)).await;
    }

    async fn apply_all(&self, events: impl Stream<Item = watcher::Result<Event<ConfigMap>>>) {
        let mut events = std::pin::pin!(events.backoff(process::watch::backoff()));
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = false,
                Ok(Event::InitApply(map) | Event::Apply(map)) => {
                    listed = true;
                    self.apply(&map);
                }
                Ok(Event::InitDone) => {
                    if !listed {
                        self.clear();
                    }
                    self.synced.store(true, Ordering::Release);
                }
                Ok(Event::Delete(_)) => self.clear(),
                Err(error) => {
                    tracing::warn!(error = %error, "the watch of the ConfigMap with roles failed and is retried");
                }
            }
        }
    }

    /// Applies the valid entries of the ConfigMap, and logs the invalid ones.
    pub fn apply(&self, map: &ConfigMap) {
        let text = map.data.as_ref().and_then(|data| data.get(mapping::KEY)).map(String::as_str);
        // A ConfigMap without the key counts as one without entries, as if it were deleted.
        let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{}");
        let (mapping, problems) = Mapping::read(text, &read(&self.mapping));
        for problem in &problems {
            tracing::error!(problem = %problem, "ConfigMap {}: an entry is not usable", names::ROLE_MAP);
        }
        tracing::info!(entries = mapping.len(), problems = problems.len(), "roles read from the ConfigMap");
        self.metrics.mapping(mapping.len(), problems.len());
        *self.mapping.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(mapping);
    }

    fn clear(&self) {
        self.metrics.mapping(0, 0);
        *self.mapping.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// Keeps the container-credentials list equal to the file; does not return.
    pub async fn follow_file(&self, path: &Path) {
        files::follow([path], |[content]| match content.as_deref().map(ContainerCredentialsList::read) {
            None => self.set_container_credentials(ContainerCredentialsList::default()),
            Some(Ok(list)) => self.set_container_credentials(list),
            Some(Err(error)) => {
                self.metrics.container_credentials_refused();
                tracing::error!(
                    line = error.line(),
                    column = error.column(),
                    "the container-credentials file is not valid; the last valid version stays in force"
                );
            }
        })
        .await;
    }

    /// Replaces the list of `ServiceAccount`s in container-credentials mode.
    pub fn set_container_credentials(&self, list: ContainerCredentialsList) {
        tracing::info!(identities = list.len(), "container-credentials file read");
        self.metrics.container_credentials(list.len());
        *self.container_credentials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }

    /// Whether all that is watched has been read.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The `ServiceAccount`'s entry in the ConfigMap.
    #[must_use]
    pub fn mapped(&self, namespace: &str, service_account: &str) -> Option<Arc<Mapped>> {
        read(&self.mapping).get(namespace, service_account).cloned()
    }

    /// Whether the `ServiceAccount` is in the container-credentials file.
    #[must_use]
    pub fn has_container_credentials(&self, namespace: &str, service_account: &str) -> bool {
        read(&self.container_credentials).contains(namespace, service_account)
    }
}

/// Every change is one assignment, so a panic leaves no change incomplete.
fn read<T>(lock: &RwLock<Arc<T>>) -> Arc<T> {
    Arc::clone(&lock.read().unwrap_or_else(PoisonError::into_inner))
}
