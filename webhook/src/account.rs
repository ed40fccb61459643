//! A `ServiceAccount` as it is asked for and read: its metadata only, and of that only what counts. `managedFields` alone
//! is most of what the API server sends, and a cluster has a hundred thousand of these.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::ready;

use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client, Resource};
use serde::{Deserialize, Deserializer};

/// Metadata of a `ServiceAccount`: name, namespace, resource version and annotations.
#[derive(Debug, Clone, Default)]
pub struct Account(ObjectMeta);

impl Resource for Account {
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

    /// Asks for `PartialObjectMetadata`.
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

impl<'de> Deserialize<'de> for Account {
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

/// Every `ServiceAccount`, and what becomes of them.
///
/// Streamed one by one (Kubernetes' streaming lists), which takes half the time of pages of 500 and holds none of them. Such
/// a list is as fresh as the API server's own cache: a `ServiceAccount` that it lacks is looked for anyway, and one it has
/// of a moment ago is what a watch might show, too. An API server that refuses to stream or does not come to an end within
/// a watch's time is asked for pages from then on.
pub fn watch(client: Client, config: Config) -> impl Stream<Item = watcher::Result<Event<Account>>> {
    let api = Api::<Account>::all(client);
    let streamed = kube::runtime::watcher(api.clone(), config.clone().streaming_lists());
    let listed = kube::runtime::watcher(api, config);
    let mut begun = false;
    let streamed = streamed.take_while(move |event| {
        let goes_on = match event {
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
        if !goes_on {
            tracing::info!("the API server does not stream ServiceAccounts: they are listed");
        }
        ready(goes_on)
    });
    streamed.chain(listed)
}
