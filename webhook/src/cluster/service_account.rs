//! `ServiceAccount`s as they are requested and read: only the metadata, and of that only a few fields. `managedFields` alone
//! are most of what the API server sends, and a cluster may have a hundred thousand `ServiceAccount`s.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client, Resource};
use serde::{Deserialize, Deserializer};

use crate::identity::facts::Annotations;

/// Metadata of a `ServiceAccount`: name, namespace, resource version and annotations.
#[derive(Debug, Clone, Default)]
pub struct ServiceAccountMetadata(ObjectMeta);

impl ServiceAccountMetadata {
    /// Its annotations under `prefix`, if there are any.
    #[must_use]
    pub fn annotations(&self, prefix: &str) -> Option<Arc<Annotations>> {
        Annotations::read(self.0.annotations.as_ref()?, prefix).map(Arc::new)
    }
}

impl Resource for ServiceAccountMetadata {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ServiceAccount".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "serviceaccounts".into()
    }

    /// Makes kube request `PartialObjectMetadata`.
    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0
    }
}

impl<'de> Deserialize<'de> for ServiceAccountMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            name: Option<String>,
            namespace: Option<String>,
            resource_version: Option<String>,
            annotations: Option<BTreeMap<String, String>>,
        }
        let Object { metadata: Metadata { name, namespace, resource_version, annotations } } =
            Object::deserialize(deserializer)?;
        Ok(Self(ObjectMeta { name, namespace, resource_version, annotations, ..ObjectMeta::default() }))
    }
}

/// A watch of all `ServiceAccount`s.
///
/// The initial list is streamed object by object (Kubernetes' streaming lists), which takes half the time of pages of 500 and
/// needs no memory for a page. Such a list is as fresh as the API server's own cache: a `ServiceAccount` that it lacks is
/// looked up live anyway, and an outdated one is what a watch may have, too. Where the API server refuses to stream, or does
/// not finish within the time of a watch, the list is requested in pages from then on.
pub fn watch(
    client: Client,
    config: Config,
) -> impl Stream<Item = watcher::Result<Event<ServiceAccountMetadata>>> {
    let api = Api::<ServiceAccountMetadata>::all(client);
    let streamed = kube::runtime::watcher(api.clone(), config.clone().streaming_lists());
    let listed = kube::runtime::watcher(api, config);
    let mut begun = false;
    let streamed = streamed.take_while(move |event| {
        let continues = match event {
            Ok(Event::Init) => !std::mem::replace(&mut begun, true),
            Ok(Event::InitDone) => {
                begun = false;
                true
            }
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(refusal))) => {
                ![400, 422].contains(&refusal.code)
            }
            _ => true,
        };
        if !continues {
            tracing::info!("the API server does not stream ServiceAccounts; they are listed in pages");
        }
        ready(continues)
    });
    streamed.chain(listed)
}
