//! Pods that run without the identity of their binding: found by one watch of all pods, and by a list of a `ServiceAccount`'s pods where
//! what is expected of them is new.

pub mod examine;
pub mod follow;
pub mod message;
pub mod model;
pub mod restart;
pub mod store;
pub mod wakes;
pub mod watched;

use std::sync::Arc;

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use self::examine::examine;
use self::model::{Expected, Key, PodsState};
use self::store::{Asked, Store};
use self::watched::WatchedPod;
use crate::metrics::Metrics;

/// Pods that have ended are not looked at.
const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// Pods of one answer of the API server: they are in memory at once, and a pod may have more than a megabyte.
const PAGE: u32 = 25;

/// What finds the pods. Cheap to clone.
#[derive(Clone)]
pub struct Pods {
    /// Those that were found.
    pub store: Store,
    settings: Settings,
    client: Client,
}

/// How pods are looked at.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Watch pods, to find those that run without the identity of their binding. Needs the right to list and watch pods.
    #[arg(long = "pod-watch", default_value_t = true, action = clap::ArgAction::Set)]
    pub watch: bool,
    /// The prefix of the annotations that the webhook reads.
    #[arg(long, default_value = model::DEFAULT_PREFIX)]
    pub annotation_prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { watch: true, annotation_prefix: model::DEFAULT_PREFIX.to_owned() }
    }
}

impl Pods {
    /// Knows no pods yet.
    #[must_use]
    pub fn new(client: Client, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self { store: Store::new(metrics), settings, client }
    }

    /// The pods of a `ServiceAccount` that run without what is expected of them.
    pub async fn of(&self, key: &Key, expected: &Expected) -> PodsState {
        if !self.settings.watch {
            return PodsState::NotWatched;
        }
        match self.store.ask(key, expected) {
            Asked::Answer(state) => state,
            Asked::List => match self.list(key, expected).await {
                Ok(state) => state,
                Err(error) => PodsState::Unreadable(format!("pods cannot be listed: {error}")),
            },
        }
    }

    async fn list(&self, key: &Key, expected: &Expected) -> Result<PodsState, kube::Error> {
        let (namespace, service_account) = key;
        let api: Api<WatchedPod> = Api::namespaced(self.client.clone(), namespace);
        let of_account = format!("spec.serviceAccountName={service_account},{RUNNING}");
        let (mut missing, mut next) = (Vec::new(), None);
        loop {
            let page = ListParams::default().fields(&of_account).limit(PAGE);
            let page = api.list(&ListParams { continue_token: next, ..page }).await?;
            let found =
                page.items.iter().filter_map(|pod| Some((pod.name_any(), self.examine(pod, expected)?)));
            missing.extend(found);
            next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(self.store.listed(key, expected, missing));
            }
        }
    }

    fn examine(&self, pod: &WatchedPod, expected: &Expected) -> Option<model::Missing> {
        examine(&pod.metadata, pod.spec.get(), pod.phase(), expected, &self.settings.annotation_prefix)
    }
}
